/*
 * Asks the C library for addresses, as every program in a container does. Built against glibc and
 * musl by dns_e2e_test.ts.
 *
 *   resolve NAME...              one line a name: NAME MILLISECONDS ADDRESS... or NAME MILLISECONDS !ERROR
 *   resolve --for SECONDS NAME   asks without a pause; prints asked, failed and the slowest
 *   resolve --wait               does nothing until it is told to stop
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ADDRESSES_MAX 256

static double now_ms(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1e3 + at.tv_nsec / 1e6;
}

static int compare(const void *a, const void *b) { return strcmp(a, b); }

/* The addresses of a name, sorted, without doubles; a negative count is the library's error. */
static int resolve(const char *name, char found[ADDRESSES_MAX][INET6_ADDRSTRLEN]) {
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
  int error = getaddrinfo(name, NULL, &hints, &list);
  if (error != 0) return error > 0 ? -error : error;
  int count = 0;
  for (struct addrinfo *one = list; one != NULL && count < ADDRESSES_MAX; one = one->ai_next) {
    void *address = one->ai_family == AF_INET
                        ? (void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
                        : (void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
    inet_ntop(one->ai_family, address, found[count++], INET6_ADDRSTRLEN);
  }
  freeaddrinfo(list);
  qsort(found, count, INET6_ADDRSTRLEN, compare);
  return count;
}

static int ask_for(double seconds, const char *name) {
  static char found[ADDRESSES_MAX][INET6_ADDRSTRLEN];
  double start = now_ms(), slowest = 0;
  int asked = 0, failed = 0;
  for (double at = start; at - start < seconds * 1e3; at = now_ms()) {
    asked++;
    if (resolve(name, found) <= 0) failed++;
    double took = now_ms() - at;
    if (took > slowest) slowest = took;
    usleep(1000);
  }
  printf("{\"asked\":%d,\"failed\":%d,\"slowestMs\":%.0f}\n", asked, failed, slowest);
  return 0;
}

static void end(int signal) {
  (void)signal;
  _exit(0);
}

int main(int argc, char **argv) {
  static char found[ADDRESSES_MAX][INET6_ADDRSTRLEN];
  if (argc == 2 && strcmp(argv[1], "--wait") == 0) {
    signal(SIGTERM, end);
    for (;;) pause();
  }
  if (argc == 4 && strcmp(argv[1], "--for") == 0) return ask_for(atof(argv[2]), argv[3]);
  for (int index = 1; index < argc; index++) {
    double at = now_ms();
    int count = resolve(argv[index], found);
    printf("%s %.0f", argv[index], now_ms() - at);
    if (count < 0) printf(" !%s", gai_strerror(count == -EAI_AGAIN ? EAI_AGAIN : count));
    for (int one = 0; one < count; one++) printf(" %s", found[one]);
    printf("\n");
  }
  return 0;
}
