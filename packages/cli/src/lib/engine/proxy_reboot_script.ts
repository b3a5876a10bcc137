import { argvPinned } from "./container_run.ts";
import {
  CONTAINER_NETWORK,
  PROXY_CONTAINER,
  PROXY_VOLUME,
  PROXY_VOLUME_TARGET,
  SERVER_PATHS,
} from "@jiji/core";
import { PROXY_IMAGE } from "../../constants.ts";
import { renderCommandLine } from "../../utils/ssh/quote.ts";
import { argvRunProxy, type ProxyPlace } from "./proxy_commands.ts";

/** Container that takes the proxy's visitors while it is replaced. */
export const PROXY_STANDIN = "kamal-proxy-standin";
/** Name of the former proxy until the new one has been verified. */
export const PROXY_PREVIOUS = "kamal-proxy-previous";
/** The stand-in's copy of state and certificates. */
export const STANDIN_VOLUME = "jiji-kamal-proxy-standin";
/** Comment on the firewall rules that lead visitors to the stand-in. */
const RULE_COMMENT = "jiji-proxy-standin";

/** Where a proxy is replaced, and by what it is stood in for. */
export interface ProxyReboot extends ProxyPlace {
  /** Free address of the server's block for the stand-in. */
  readonly standinAddress: string;
  /** The server's block, CIDR text. */
  readonly block: string;
  /** Connections may take this long to end, seconds. */
  readonly drainSeconds: number;
}

/** `docker run` of the stand-in: like the proxy, without ports of the server, gone after a reboot. */
function argvRunStandin(reboot: ProxyReboot): readonly [string, ...string[]] {
  return [
    ...[reboot.engine, "run", "--detach", "--name", PROXY_STANDIN] as const,
    ...["--network", CONTAINER_NETWORK, ...argvPinned(reboot.engine, reboot.standinAddress)],
    ...["--dns", reboot.dnsServer, "--restart", "no"],
    ...(reboot.engine === "podman" ? ["--sysctl", "net.ipv4.ip_unprivileged_port_start=0"] : []),
    ...["--volume", `${STANDIN_VOLUME}:${PROXY_VOLUME_TARGET}`],
    ...["--label", `jiji.proxy.standin=${reboot.standinAddress}`],
    PROXY_IMAGE,
  ];
}

/**
 * Script that replaces the proxy of a server while a stand-in serves. It is wholly read before it
 * begins and survives the loss of its caller, so that it always comes to an end of its own. Lines
 * that begin with `@@ ` tell where it is; `@@fail ` why it stopped.
 *
 * Power loss: the former proxy keeps its restart policy until the new one runs, so one of them
 * comes back. In-flight requests are seen as connections of the container (proc(5), net/tcp:
 * 01 established, 03 being made, 08 half closed).
 */
export function renderProxyRebootScript(reboot: ProxyReboot): string {
  const chain = reboot.engine === "docker" ? "DOCKER-USER" : "FORWARD";
  return `set -u
trap '' PIPE HUP
engine=${reboot.engine} image=${PROXY_IMAGE} proxy=${PROXY_CONTAINER} standin=${PROXY_STANDIN}
daemon=${SERVER_PATHS.bin}/jiji-daemon
previous=${PROXY_PREVIOUS} address=${reboot.standinAddress} drain=${reboot.drainSeconds}
run_proxy() { ${renderCommandLine(argvRunProxy(reboot))} >/dev/null; }
run_standin() { ${renderCommandLine(argvRunStandin(reboot))} >/dev/null; }
lead() {
  for port in 80 443; do
    set -- -p tcp --dport $port -m comment --comment ${RULE_COMMENT}
    iptables -w 5 -I ${chain} 1 -d "$address" "$@" -j ACCEPT &&
    iptables -w 5 -t nat -I POSTROUTING 1 -s ${reboot.block} -d "$address" "$@" -m conntrack --ctstate DNAT -j SNAT --to-source ${reboot.dnsServer} &&
    iptables -w 5 -t nat -I OUTPUT 1 ! -d 127.0.0.0/8 "$@" -m addrtype --dst-type LOCAL -j DNAT --to-destination "$address:$port" &&
    iptables -w 5 -t nat -I PREROUTING 1 "$@" -m addrtype --dst-type LOCAL -j DNAT --to-destination "$address:$port" || return
  done
}
${FUNCTIONS}
main "$@"
exit $?
`;
}

const FUNCTIONS = `say() { printf '@@ %s\\n' "$*" || :; }
fail() { printf '@@fail %s\\n' "$*" || :; exit 1; }
exists() { "$engine" inspect --type container "$1" >/dev/null 2>&1; }
running() { [ "$("$engine" inspect --type container --format '{{.State.Running}}' "$1" 2>/dev/null)" = true ]; }
sockets() {
  pid=$("$engine" inspect --type container --format '{{.State.Pid}}' "$1" 2>/dev/null) || pid=0
  [ "$pid" -gt 0 ] || { echo 0; return; }
  cat "/proc/$pid/net/tcp" "/proc/$pid/net/tcp6" 2>/dev/null |
    awk -v states="$2" '$4 ~ states && $2 ~ /:(0050|01BB)$/ { n++ } END { print n + 0 }'
}
routes() {
  "$engine" exec "$1" kamal-proxy list 2>/dev/null | tr -d '\\033' | sed 's/\\[[0-9;]*m//g' |
    awk 'NR > 1 { print $1, $2, $3, $4 }' | sort
}
ready() {
  end=$(($(date +%s) + 15))
  until [ "$(sockets "$1" '^0A$')" -ge 2 ] && "$engine" exec "$1" kamal-proxy list >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$end" ] && running "$1" || return 1
    sleep 0.1
  done
}
idle() {
  end=$(($(date +%s) + drain))
  sleep 0.3
  while [ "$(sockets "$1" '^(01|03|08)$')" -gt 0 ] && [ "$(date +%s)" -lt "$end" ]; do sleep 0.2; done
}
unlead() {
  iptables -w 5 -t "$1" -S | grep -e '--comment ${RULE_COMMENT}' | sed 's/^-A/-D/' |
    while read -r rule; do iptables -w 5 -t "$1" $rule; done
}
dismiss() {
  unlead nat
  exists "$standin" && { idle "$standin"; "$engine" stop --time 20 "$standin" >/dev/null 2>&1; }
  "$engine" rm --force "$standin" >/dev/null 2>&1
  unlead filter
  "$engine" volume rm ${STANDIN_VOLUME} >/dev/null 2>&1
  return 0
}
copy_state() {
  from=$("$engine" volume inspect --format '{{.Mountpoint}}' ${PROXY_VOLUME}) || return
  "$engine" rm --force "$standin" >/dev/null 2>&1
  "$engine" volume rm ${STANDIN_VOLUME} >/dev/null 2>&1
  "$engine" volume create ${STANDIN_VOLUME} >/dev/null || return
  to=$("$engine" volume inspect --format '{{.Mountpoint}}' ${STANDIN_VOLUME}) || return
  cp -a "$from/." "$to/"
}
# A proxy that starts checks at once whom it can't check without a voucher, see vouching.ts.
vouching() {
  pipes=$(mktemp -d) && mkfifo "$pipes/in" "$pipes/out" || { "$@"; return; }
  "$daemon" vouch-all --timeout-ms=120000 <"$pipes/in" >"$pipes/out" 2>/dev/null &
  voucher=$!
  exec 8>"$pipes/in"
  # One of another version has no such command: then it goes on as that version did.
  read -r _ <"$pipes/out" || :
  # What it starts may outlive it and must not hold the pipe.
  "$@" 8>&-
  set -- $?
  exec 8>&-
  wait "$voucher" || :
  rm -r "$pipes"
  return "$1"
}
stand_in() {
  for try in 1 2 3; do
    copy_state && run_standin && ready "$standin" && [ "$(routes "$standin")" = "$(routes "$proxy")" ] &&
      return 0
  done
  return 1
}
start_proxy() { run_proxy && ready "$proxy"; }
put_back() {
  if exists "$previous"; then
    "$engine" rm --force "$proxy" >/dev/null 2>&1
    "$engine" rename "$previous" "$proxy" || return
  fi
  "$engine" start "$proxy" >/dev/null && ready "$proxy"
}
replace() {
  [ "$engine" = podman ] || "$engine" update --restart always "$proxy" >/dev/null 2>&1
  wanted=$(routes "$proxy")
  "$engine" stop --time 20 "$proxy" >/dev/null
  "$engine" rename "$proxy" "$previous" || return
  start_proxy && [ "$(routes "$proxy")" = "$wanted" ]
}
main() {
  command -v iptables >/dev/null || fail "iptables is missing"
  exists "$proxy" || { exists "$previous" && "$engine" rename "$previous" "$proxy"; }
  exists "$previous" && "$engine" rm --force "$previous" >/dev/null
  say pulling
  "$engine" pull --quiet "$image" >/dev/null || fail "$image can't be pulled; the proxy serves as before"
  if ! running "$proxy"; then
    say starting
    "$engine" rm --force "$proxy" >/dev/null 2>&1
    vouching start_proxy || fail "kamal-proxy does not start"
    dismiss
    say done
    return 0
  fi
  say tidying
  dismiss
  say standing in
  vouching stand_in || { dismiss; fail "the stand-in does not serve the same routes; the proxy serves as before"; }
  lead || { dismiss; fail "the firewall can't be changed; the proxy serves as before"; }
  say draining
  idle "$proxy"
  [ "$(routes "$standin")" = "$(routes "$proxy")" ] ||
    { dismiss; fail "another deploy changed routes meanwhile; the proxy serves as before"; }
  say replacing
  if ! vouching replace; then
    vouching put_back || fail "neither the new nor the former proxy starts; the stand-in serves until a reboot"
    dismiss
    fail "the new proxy does not serve the same routes; the former one was put back"
  fi
  "$engine" rm --force "$previous" >/dev/null
  say leading back
  dismiss
  say done
}`;
