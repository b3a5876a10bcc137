/** From what a probe found to the probable cause; pure. The first rule that fits wins. */
import type { ProbeReport } from "@jiji/core";

/** A probable cause of a container that did not get healthy. */
export interface Diagnosis {
  /** Stable word for `--json`. */
  readonly kind: string;
  /** What is probably wrong, a sentence without a capital or period. */
  readonly cause: string;
  /** What to do about it. */
  readonly advice: string;
}

/** What is known beside the report. */
export interface DiagnosisFacts {
  /** How long it was waited, milliseconds. */
  readonly timeoutMs: number;
  /** Names of the variables in the service's environment. */
  readonly environmentNames: readonly string[];
  /** The service's limit such as `512m`. */
  readonly memory: string | undefined;
}

type Rule = (report: ProbeReport, facts: DiagnosisFacts) => Diagnosis | undefined;

/** The probable cause; undefined when nothing that is known fits. */
export function diagnose(report: ProbeReport, facts: DiagnosisFacts): Diagnosis | undefined {
  const rules = hasCrashed(report) ? CRASH_RULES : [...LOG_RULES_WHILE_STARTING, ...CHECK_RULES];
  for (const rule of rules) {
    const found = rule(report, facts);
    if (found) return found;
  }
  return undefined;
}

function hasCrashed({ state }: ProbeReport): boolean {
  return !state.running || state.restarts > 0;
}

function diagnosis(kind: string, cause: string, advice: string): Diagnosis {
  return { kind, cause, advice };
}

/** Lines of the log, the last first. */
function lastLines(report: ProbeReport): string[] {
  return report.logs_tail.split("\n").map((line) => line.trim()).filter(Boolean).reverse();
}

/** The last line that matches, shortened. */
function lineWith(report: ProbeReport, pattern: RegExp): string | undefined {
  return lastLines(report).find((line) => pattern.test(line))?.slice(0, 160);
}

/** Texts of the engine and of the log. */
function words(report: ProbeReport): string {
  return `${report.state.error ?? ""}\n${report.logs_tail}`;
}

const outOfMemory: Rule = ({ state }, { memory }) =>
  state.oom_killed
    ? diagnosis(
      "out_of_memory",
      memory === undefined
        ? "it was killed because the server ran out of memory"
        : `it was killed because it used more memory than its limit of ${memory}`,
      memory === undefined ? "give it a server with more memory" : "raise `memory` of the service",
    )
    : undefined;

const wrongArchitecture: Rule = (report) =>
  /exec format error|wrong architecture|cannot execute binary file/i.test(words(report))
    ? diagnosis(
      "architecture",
      "its program is made for another kind of processor than the server's",
      "build or choose an image for the server's architecture, see `arch` of the server",
    )
    : undefined;

const commandMissing: Rule = (report) =>
  report.state.exit_code === 127 || /executable file not found/i.test(words(report))
    ? diagnosis(
      "command_missing",
      "its command was not found in the image (exit 127)",
      "look at `command` of the service and at the image's CMD",
    )
    : undefined;

const commandNotExecutable: Rule = ({ state }) =>
  state.exit_code === 126
    ? diagnosis(
      "command_not_executable",
      "its command was found but can't be executed (exit 126)",
      "make it executable in the image, or write the interpreter in front of it",
    )
    : undefined;

/** Sentences in which programs complain of a variable that is not set. */
const MISSING_VARIABLE = [
  /(?:missing|required|undefined|unset|no) (?:required )?(?:environment |env )?var(?:iable)?s?:? *["'`$]?\{?([A-Z][A-Z0-9_]{2,})/i,
  /["'`$]?\{?\b([A-Z][A-Z0-9_]{2,})\}?["'`]? (?:environment variable |env var )?(?:is |was |must be |has to be )?(?:not set|not defined|missing|required|undefined|unset|unbound|set$)/,
  /KeyError: ['"]([A-Z][A-Z0-9_]{2,})['"]/,
  /key not found: ["']([A-Z][A-Z0-9_]{2,})["']/,
  /\b([A-Z][A-Z0-9_]{2,}): (?:parameter not set|unbound variable|parameter null or not set)/,
];

const missingVariable: Rule = (report, { environmentNames }) => {
  for (const line of lastLines(report)) {
    for (const pattern of MISSING_VARIABLE) {
      const name = pattern.exec(line)?.[1];
      if (name === undefined || !/^[A-Z]/.test(name) || environmentNames.includes(name)) continue;
      return diagnosis(
        "missing_variable",
        `it misses the variable ${name}`,
        `add ${name} to the service's environment (clear or secrets)`,
      );
    }
  }
  return undefined;
};

const permissionDenied: Rule = (report) => {
  const line = lineWith(report, /permission denied|EACCES|operation not permitted|read-only file/i);
  return line === undefined ? undefined : diagnosis(
    "permission",
    `it may not do what it tries: ${line}`,
    "look at mode and owner of its files, directories and volumes, and at the user it runs as",
  );
};

const addressInUse: Rule = (report) => {
  const line = lineWith(report, /address already in use|EADDRINUSE/i);
  return line === undefined ? undefined : diagnosis(
    "address_in_use",
    `its port is taken inside the container: ${line}`,
    "two programs of the container want one port",
  );
};

const dependencyMissing: Rule = (report) => {
  const line = lineWith(
    report,
    /ECONNREFUSED|connection refused|ENOTFOUND|EAI_AGAIN|could not (?:connect|translate host)|no such host|name or service not known/i,
  );
  return line === undefined ? undefined : diagnosis(
    "dependency",
    `it could not reach what it needs: ${line}`,
    "is that service up, and does it have this name? see: jiji network dns",
  );
};

const killed: Rule = ({ state }) =>
  state.exit_code === 137
    ? diagnosis(
      "killed",
      "something on the server killed it (exit 137, SIGKILL)",
      "look for the kernel's words on memory: jiji server exec -- dmesg",
    )
    : state.exit_code === 139
    ? diagnosis(
      "segfault",
      "its program crashed by a memory fault (exit 139, SIGSEGV)",
      "is the image made for this server's processor and C library?",
    )
    : undefined;

const endedWell: Rule = ({ state }) =>
  state.exit_code === 0 && !state.running
    ? diagnosis(
      "ended",
      "its command did its work and ended (exit 0)",
      "a service has to stay in the foreground; a one-off task is a `release_command`",
    )
    : undefined;

const crashed: Rule = (report) => {
  const { state } = report;
  const telling = /error|fail|invalid|fatal|panic|exception|traceback|cannot|unable|not found/i;
  const line = lineWith(report, telling) ?? lastLines(report)[0];
  const code = state.exit_code === null ? "" : ` with exit code ${state.exit_code}`;
  return diagnosis(
    "crash",
    `its command ends at once${code}${line === undefined ? "" : `: ${line.slice(0, 160)}`}`,
    "its own last lines tell why",
  );
};

const CRASH_RULES: readonly Rule[] = [
  outOfMemory,
  wrongArchitecture,
  commandMissing,
  commandNotExecutable,
  missingVariable,
  addressInUse,
  permissionDenied,
  dependencyMissing,
  killed,
  endedWell,
  crashed,
];

/** A program that still runs but says what it waits for. */
const LOG_RULES_WHILE_STARTING: readonly Rule[] = [
  (report, facts) => isSilent(report) ? missingVariable(report, facts) : undefined,
  (report, facts) => isSilent(report) ? dependencyMissing(report, facts) : undefined,
];

/** Nothing listens, so no check by network can succeed. */
function isSilent({ listening }: ProbeReport): boolean {
  return listening !== undefined && listening !== null && listening.length === 0;
}

const wantsLogin: Rule = ({ answer, check }) =>
  answer?.status === 401 || (isRedirect(answer?.status) && isLogin(answer?.headers["location"]))
    ? diagnosis(
      "login",
      `${check?.path ?? "the path"} asks for a login (${answer?.status})`,
      "check a path that answers without one: `healthcheck.path`",
    )
    : undefined;

function isRedirect(status: number | undefined): boolean {
  return status !== undefined && status >= 300 && status < 400;
}

function isLogin(location: string | undefined): boolean {
  return /\/(log[-_]?in|sign[-_]?in|session|auth)\b/i.test(location ?? "");
}

const redirects: Rule = ({ answer, check }) => {
  if (!isRedirect(answer?.status)) return undefined;
  const location = answer?.headers["location"] ?? "";
  return /^https:/i.test(location)
    ? diagnosis(
      "redirect_https",
      `it redirects plain HTTP to HTTPS (${answer?.status} to ${location.slice(0, 80)})`,
      "TLS ends at the proxy: exempt the check's path from the redirect in the application",
    )
    : diagnosis(
      "redirect",
      `${check?.path ?? "the path"} redirects (${answer?.status} to ${location.slice(0, 80)})`,
      "check a path that answers with 2xx itself: `healthcheck.path`",
    );
};

/** Words of Rails, Django, Vite and others that refuse a name. */
const HOST_WORDS =
  /blocked host|disallowedhost|invalid http_host|allowed_hosts|host is not allowed|allowedhosts|unknown host|invalid host/i;

const refusesHost: Rule = (report) => {
  const { answer, check } = report;
  if (answer?.status !== 400 && answer?.status !== 403 && answer?.status !== 421) return undefined;
  const host = check?.host;
  const name = host === undefined ? "the container's address as Host" : `Host: ${host}`;
  const sure = HOST_WORDS.test(answer.body + words(report)) || answer.status === 421;
  return diagnosis(
    "host_refused",
    `it ${sure ? "refuses" : "may refuse"} ${name} (${answer.status})`,
    host === undefined
      ? "allow any host name for the check's path, or give the service a `host`"
      : `add ${host} to the host names that the application allows`,
  );
};

const notFound: Rule = ({ answer, check, good_paths = [] }) =>
  answer?.status === 404
    ? diagnosis(
      "wrong_path",
      `it answers, but has nothing at ${check?.path ?? "the check's path"} (404)`,
      good_paths.length > 0
        ? `these answer with 2xx: ${good_paths.join(", ")}; set \`healthcheck.path\``
        : "set `healthcheck.path` to one that answers with 2xx",
    )
    : undefined;

const serverError: Rule = (report) => {
  const { answer } = report;
  if (answer === undefined || answer === null || answer.status < 500) return undefined;
  const line = lineWith(report, /error|exception|fatal|panic|failed|traceback/i);
  return diagnosis(
    "server_error",
    `it answers with ${answer.status}${line === undefined ? "" : `; its log says: ${line}`}`,
    "its own last lines tell why",
  );
};

const otherStatus: Rule = ({ answer, check }) =>
  answer === undefined || answer === null ? undefined : diagnosis(
    "status",
    `${check?.path ?? "the check's path"} answers with ${answer.status}; 2xx is healthy`,
    "check a path that answers with 2xx: `healthcheck.path`",
  );

const LOOPBACK = /^(127\.|::1$)/;

/** What a check by network met, when there was no answer at all. */
const ports: Rule = ({ check, listening, tries }, { timeoutMs }) => {
  const port = check?.port;
  if (port === undefined || listening === undefined || listening === null) return undefined;
  const seconds = Math.round(timeoutMs / 1000);
  if (listening.length === 0) {
    return diagnosis(
      "slow_start",
      `after ${seconds} s it listens on no port yet`,
      "if it needs longer to start, raise `healthcheck.deploy_timeout`",
    );
  }
  const open = listening.filter((one) => !LOOPBACK.test(one.ip));
  const here = listening.filter((one) => one.port === port);
  if (open.some((one) => one.port === port)) return deafPort(port, tries.at(-1)?.outcome ?? "");
  if (here.length > 0) {
    return diagnosis(
      "loopback_only",
      `it listens on ${here[0]!.ip}:${port} only, which nothing outside the container reaches`,
      `let it listen on 0.0.0.0:${port}`,
    );
  }
  const others = [...new Set((open.length > 0 ? open : listening).map((one) => one.port))];
  return diagnosis(
    "wrong_port",
    `it listens on ${others.join(", ")}, not on ${port}`,
    others.length === 1
      ? `write ${others[0]} in \`ports\` and \`app_port\`, or let it listen on ${port}`
      : `write the right one in \`ports\` and \`app_port\`, or let it listen on ${port}`,
  );
};

function deafPort(port: number, outcome: string): Diagnosis | undefined {
  if (/no HTTP answer/.test(outcome)) {
    return diagnosis(
      "not_http",
      `what listens on ${port} does not speak plain HTTP`,
      "TLS ends at the proxy; for another protocol use `healthcheck: {tcp: true}`",
    );
  }
  if (!/no answer in/.test(outcome)) return undefined;
  return diagnosis(
    "slow_answer",
    `it takes connections on ${port} but does not answer in time`,
    "does the check wait for something else, e.g. a database? raise `healthcheck.timeout`?",
  );
}

const checkCommand: Rule = ({ check, tries }) => {
  const outcome = tries.at(-1)?.outcome ?? "";
  if (check?.kind !== "command") return undefined;
  if (/→ (126|127)\b|executable file not found|no such file or directory/i.test(outcome)) {
    return diagnosis(
      "check_command",
      "the check's own command, or the shell that runs it, is not in the image",
      "write `healthcheck.cmd` with a program that the image has, or use `tcp: true`",
    );
  }
  return diagnosis(
    "check_command",
    `the check's command fails: ${outcome.slice(0, 160)}`,
    `try it: jiji services exec -- ${check.command ?? ""}`,
  );
};

const imageHealthcheck: Rule = ({ check, tries }) =>
  check?.kind === "engine" && /HEALTHCHECK/.test(tries.at(-1)?.outcome ?? "")
    ? diagnosis(
      "image_healthcheck",
      "the image's own HEALTHCHECK does not succeed",
      "see what it runs with `docker inspect`, or write a `healthcheck` of your own",
    )
    : undefined;

const CHECK_RULES: readonly Rule[] = [
  wantsLogin,
  redirects,
  refusesHost,
  notFound,
  serverError,
  otherStatus,
  ports,
  checkCommand,
  imageHealthcheck,
];
