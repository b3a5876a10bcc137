import type { Argv } from "@jiji/core/runtime";

/** A word as any Bourne shell takes it: bare when harmless, else in single quotes. Pure. */
export function quoteWord(word: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** The one place where an argument list becomes a command line. Pure. */
export function renderCommandLine(argv: Argv): string {
  return argv.map(quoteWord).join(" ");
}

/** The same command as root. `-n`: never wait for a password. Pure. */
export function argvSudo(argv: Argv): Argv {
  return ["sudo", "-n", "--", ...argv];
}

/**
 * Writes standard input to a file whole or not at all: beside the target, checked for its length
 * (a lost connection looks like the end of the input), then renamed over it. Pure.
 */
export function argvReceiveFile(
  target: string,
  options: { readonly mode: number; readonly bytes: number },
): Argv {
  const script = [
    "set -eu",
    "umask 077",
    'part=$(mktemp "$1.XXXXXX")',
    `trap 'rm -f "$part"' EXIT HUP INT TERM`,
    'cat > "$part"',
    'got=$(wc -c < "$part")',
    'if [ "$got" -ne "$3" ]; then echo "received $got of $3 bytes" >&2; exit 74; fi',
    'chmod "$2" "$part"',
    'sync "$part" 2>/dev/null || true',
    'mv -f -T "$part" "$1"',
    "trap - EXIT",
  ].join("\n");
  const mode = options.mode.toString(8).padStart(4, "0");
  return ["sh", "-c", script, "jiji-upload", target, mode, String(options.bytes)];
}
