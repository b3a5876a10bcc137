/**
 * Several steps as one script, so that a phase of a deploy costs one round trip. The script says
 * which step begins and ends; it stops at the first that fails. Pure.
 */
import { SERVER_PATHS } from "@jiji/core";
import { quoteWord } from "../../utils/ssh/quote.ts";

/** Pause between two looks at what jiji-daemon found healthy, milliseconds. */
export const HEALTHY_LOOK_MS = 50;

/** A step as a command of the script. */
export interface ScriptStep {
  /** A program or a function of {@link SCRIPT_HEAD}, with arguments. */
  readonly argv: readonly [string, ...string[]];
  /** What the command reads; nothing otherwise. */
  readonly stdin?: string;
  /** A file to write before it, readable by root alone, gone after it. */
  readonly secretFile?: { readonly path: string; readonly content: string };
  /** Whether the script goes on when it fails. */
  readonly bestEffort: boolean;
}

/**
 * Marks stand alone on a line of both outputs, so that each step's own output is told apart; they
 * begin with `$1`, a random word that no output can guess. A mark that can't be written means that
 * the caller is gone: the script ends rather than go on unseen.
 */
const SCRIPT_HEAD = `set -u
mark=$1
secrets=
trap 'rm -f $secrets' EXIT
begin() {
  printf '\\n%s begin %s\\n' "$mark" "$1" >&2
  printf '%s begin %s\\n' "$mark" "$1" || exit 74
}
end() { printf '\\n%s end %s %s\\n' "$mark" "$1" "$2" || exit 74; }
step() { number=$1; shift; begin "$number"; "$@"; code=$?; end "$number" "$code"; [ "$code" -eq 0 ] || exit 0; }
attempt() { number=$1; shift; begin "$number"; "$@"; end "$number" "$?"; }
secret() { secrets="$secrets $1"; (umask 077; mkdir -p "\${1%/*}" && cat >"$1"); }
pull_missing() { "$1" image inspect --format '{{.Id}}' "$2" >/dev/null 2>&1 || { shift 2; "$@"; }; }
await_healthy() {
  line=$1 tries=$2; shift 2
  while [ "$tries" -gt 0 ]; do
    grep -qsxF -e "$line" ${SERVER_PATHS.healthy} && return
    sleep ${HEALTHY_LOOK_MS / 1_000}; tries=$((tries - 1))
  done
  "$@"
}
switch_route() {
  engine=$1 proxy=$2 folder=$3; shift 3
  "$@" >&2 || return
  [ -n "$folder" ] || folder=$("$engine" volume inspect --format '{{.Mountpoint}}' "$proxy") || return
  cat "$folder/kamal-proxy.state"
}
drain_route() {
  engine=$1 proxy=$2 route=$3 drain=$4
  "$engine" exec "$proxy" kamal-proxy stop "$route" "--drain-timeout=\${drain}ms" >/dev/null 2>&1
  "$engine" exec "$proxy" kamal-proxy remove "$route"
}
run_release() {
  engine=$1 name=$2 seconds=$3; shift 3
  if "$engine" inspect --type container "$name" >/dev/null 2>&1; then
    timeout "$seconds" "$engine" wait "$name" >/dev/null 2>&1
    "$engine" rm --force "$name" >/dev/null 2>&1
  fi
  timeout --kill-after=10 "$seconds" "$@" 2>&1
  code=$?
  case $code in 124 | 137) "$engine" rm --force "$name" >/dev/null 2>&1 ;; esac
  return $code
}
keep_release() {
  (umask 077; mkdir -p "$1" && cat >"$1/$2.new") && mv "$1/$2.new" "$1/$2" || return
  ls -1 "$1" | sort -r | tail -n +$(($3 + 1)) | while read -r old; do rm -f "$1/$old"; done
}
append_line() { line=$(cat) && (umask 077; mkdir -p "\${1%/*}" && printf '%s\\n' "$line" >>"$1"); }
`;

/** The script; `word` ends its here-documents and must be unguessable. */
export function renderStepScript(steps: readonly ScriptStep[], word: string): string {
  const here = (text: string) => ` <<'${word}'\n${text}${text.endsWith("\n") ? "" : "\n"}${word}`;
  const lines = steps.flatMap((step, index) => {
    const { secretFile } = step;
    const kind = step.bestEffort ? "attempt" : "step";
    const command = [kind, String(index), ...step.argv.map(quoteWord)].join(" ");
    return [
      ...(secretFile ? [`secret ${quoteWord(secretFile.path)}${here(secretFile.content)}`] : []),
      command + (step.stdin === undefined ? " </dev/null" : here(step.stdin)),
      ...(secretFile ? [`rm -f ${quoteWord(secretFile.path)}`] : []),
    ];
  });
  return `${SCRIPT_HEAD}${lines.join("\n")}\n`;
}

/** What the script tells while it runs. */
export type ScriptEvent =
  | { readonly kind: "begin"; readonly step: number }
  | { readonly kind: "output"; readonly step: number; readonly line: string }
  | { readonly kind: "end"; readonly step: number; readonly exitCode: number };

/** Reads the script's standard output as it comes, piece by piece. */
export class ScriptReader {
  readonly #mark: string;
  #rest = "";
  #step = -1;

  /** @param mark the word that marks begin with. */
  constructor(mark: string) {
    this.#mark = mark;
  }

  /** Events in a piece of output; a line that is not whole yet waits for the next. */
  read(piece: string): ScriptEvent[] {
    const lines = (this.#rest + piece).split("\n");
    this.#rest = lines.pop() ?? "";
    return lines.flatMap((line) => this.#event(line));
  }

  #event(line: string): ScriptEvent[] {
    if (!line.startsWith(`${this.#mark} `)) {
      return this.#step < 0 || line === "" ? [] : [{ kind: "output", step: this.#step, line }];
    }
    const [, kind, step, code] = line.split(" ");
    if (kind === "begin") {
      this.#step = Number(step);
      return [{ kind: "begin", step: this.#step }];
    }
    return [{ kind: "end", step: Number(step), exitCode: Number(code) }];
  }
}

/** Standard error of each step, by its number. */
export function splitErrors(stderr: string, mark: string): ReadonlyMap<number, string> {
  const parts = stderr.split(`\n${mark} begin `).slice(1);
  return new Map(parts.map((part) => {
    const end = part.indexOf("\n");
    return [Number(part.slice(0, end)), part.slice(end + 1)];
  }));
}
