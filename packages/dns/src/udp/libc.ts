/**
 * The few functions of the C library that batched UDP needs, under the narrowest permission: FFI of
 * that one file. Pointers are had from memcpy's result, since Deno's own pointer functions ask for
 * FFI of everything.
 */

/**
 * Where glibc lies; Deno itself needs glibc, so one of these is there on every host it runs on.
 * Keep equal to `--allow-ffi` in permissions.txt.
 */
export const LIBC_PATHS: Readonly<Record<typeof Deno.build.arch, readonly string[]>> = {
  x86_64: ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6", "/usr/lib/libc.so.6"],
  aarch64: ["/lib/aarch64-linux-gnu/libc.so.6", "/lib64/libc.so.6", "/usr/lib/libc.so.6"],
};

/** Signatures of the functions; `addressOf` and `readAt` are memcpy twice over. */
export const LIBC_SYMBOLS = {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  dup: { parameters: ["i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  recvmmsg: { parameters: ["i32", "buffer", "u32", "i32", "buffer"], result: "i32" },
  sendmmsg: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" },
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "isize" },
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "isize" },
  addressOf: { name: "memcpy", parameters: ["buffer", "buffer", "usize"], result: "usize" },
  readAt: { name: "memcpy", parameters: ["buffer", "usize", "usize"], result: "usize" },
  syscall: { parameters: ["i64", "i64", "buffer", "i64", "i64"], result: "i64" },
  __errno_location: { parameters: [], result: "usize" },
} as const satisfies Deno.ForeignLibraryInterface;

/**
 * Numbers of the system calls sched_getattr and sched_setattr, which glibc has no functions for.
 * Source: <asm/unistd_64.h>, <asm-generic/unistd.h>.
 */
export const SCHEDULING_CALLS: Readonly<
  Record<typeof Deno.build.arch, { readonly get: number; readonly set: number }>
> = {
  x86_64: { get: 315, set: 314 },
  aarch64: { get: 275, set: 274 },
};

/** The library, opened. */
export type Libc = Deno.DynamicLibrary<typeof LIBC_SYMBOLS>;

/** The library with its path, or why it cannot be had (the plain sockets serve then). */
export type LibcOpened =
  | { readonly kind: "open"; readonly path: string; readonly libc: Libc }
  | { readonly kind: "none"; readonly reason: string };

/** Opens the C library. Only little-endian 64-bit Linux has the layouts we write. */
export function openLibc(): LibcOpened {
  if (Deno.build.os !== "linux") return { kind: "none", reason: `no layouts for ${Deno.build.os}` };
  let reason = "no C library of a known name";
  for (const path of LIBC_PATHS[Deno.build.arch] ?? []) {
    try {
      return { kind: "open", path, libc: Deno.dlopen(path, LIBC_SYMBOLS) };
    } catch (error) {
      reason = error instanceof Error ? error.message : String(error);
    }
  }
  return { kind: "none", reason };
}

/** The thread's last error number. Source: errno(3). */
export function lastErrno(libc: Libc): number {
  const cell = new Int32Array(1);
  libc.symbols.readAt(cell, libc.symbols.__errno_location(), 4n);
  return cell[0] ?? 0;
}
