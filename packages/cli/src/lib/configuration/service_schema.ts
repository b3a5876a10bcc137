import * as v from "valibot";
import type { PortMapping } from "./config_types.ts";
import {
  isInsideProject,
  isMountOptions,
  isMountTarget,
  parseMountText,
  parsePortMapping,
  parseVolume,
  type VolumeText,
} from "./format/service_parts.ts";
import {
  duration,
  flag,
  keys,
  list,
  mapOf,
  matching,
  oneOf,
  parseByteSize,
  problem,
  quote,
  text,
  variableName,
  wholeNumber,
} from "./format/schema_parts.ts";
import { HealthCheckSchema } from "./proxy.ts";

/** A value that `read` understands, or the problem. */
function parsedBy<Value>(
  read: (input: unknown) => Value | undefined,
  what: string,
  fix: string,
): v.GenericSchema<unknown, Value> {
  return v.pipe(
    v.unknown(),
    v.rawTransform<unknown, Value>(({ dataset, addIssue, NEVER }) => {
      const value = read(dataset.value);
      if (value !== undefined) return value;
      addIssue({ message: problem(`${quote(dataset.value)} is not ${what}`, fix) });
      return NEVER;
    }),
  );
}

const scalar = v.union(
  [v.string(), v.number(), v.boolean()],
  (issue) => problem(`${quote(issue.input)} is not a value`, "text, a number, true or false"),
);

const portMapping: v.GenericSchema<unknown, PortMapping> = parsedBy(
  (input) =>
    typeof input === "string" || typeof input === "number"
      ? parsePortMapping(String(input))
      : undefined,
  "a port mapping",
  "write CONTAINER, HOST:CONTAINER or IP:HOST:CONTAINER with ports 1–65535, then /udp if not TCP",
);

const volume: v.GenericSchema<unknown, VolumeText> = parsedBy(
  (input) => typeof input === "string" ? parseVolume(input) : undefined,
  "a volume",
  "write NAME:/path or /path/on/server:/path, then :ro if it is read-only",
);

/** A file or directory as written, in its parts. */
export interface MountValues {
  readonly local: string;
  readonly remote: string;
  readonly mode?: string | undefined;
  readonly owner?: string | undefined;
  readonly options?: string | undefined;
}

const insideProject = v.pipe(
  text("a path"),
  v.check(
    isInsideProject,
    (issue) => problem(`${quote(issue.input)} leaves the project`, "a path below the project root"),
  ),
);

/** Schema of an entry of `files` or `directories` as a map. */
export const MountSchema = keys({
  local: insideProject,
  remote: v.pipe(
    text("a path"),
    v.check(
      isMountTarget,
      (issue) => problem(`${quote(issue.input)} is not a path in the container`, "starts with /"),
    ),
  ),
  mode: v.optional(v.pipe(
    v.union([v.string(), v.number()]),
    v.transform(String),
    v.regex(
      /^[0-7]{3,4}$/,
      (issue) =>
        problem(`${quote(issue.input)} is not a file mode`, 'three or four digits: "0640"'),
    ),
  )),
  owner: v.optional(
    matching(/^[\w.-]+:[\w.-]+$/, "an owner", "USER:GROUP, names or numbers"),
  ),
  options: v.optional(v.pipe(
    text("mount options"),
    v.check(isMountOptions, (issue) => problem(`${quote(issue.input)} are not mount options`)),
  )),
});

const mountText: v.GenericSchema<unknown, MountValues> = v.pipe(
  parsedBy(
    (input) => typeof input === "string" ? parseMountText(input) : undefined,
    "a pair of paths",
    "write LOCAL:REMOTE, then :ro if it is read-only",
  ),
  v.check(
    ({ local }) => isInsideProject(local),
    (issue) =>
      problem(`${quote(issue.input.local)} leaves the project`, "a path below the project root"),
  ),
);

const mount = v.lazy((input): v.GenericSchema<unknown, MountValues> =>
  typeof input === "object" && input !== null && !Array.isArray(input) ? MountSchema : mountText
);

/** Schema of `build` as a map. */
export const BuildSchema = keys({
  context: v.optional(text("a path"), "."),
  dockerfile: v.optional(text("a path")),
  args: v.optional(mapOf(scalar), {}),
  target: v.optional(text("a stage of the Dockerfile")),
  secrets: v.optional(list(variableName()), []),
});

type BuildValues = string | v.InferOutput<typeof BuildSchema>;

const build = v.lazy((input): v.GenericSchema<unknown, BuildValues> =>
  typeof input === "object" && input !== null ? BuildSchema : text("a path")
);

const cpus: v.GenericSchema<unknown, number> = parsedBy(
  (input) => {
    const value = typeof input === "string" && /^\d+(\.\d+)?$/.test(input) ? Number(input) : input;
    return typeof value === "number" && value > 0 && value <= 1_024 ? value : undefined;
  },
  "a number of processors",
  "e.g. 0.5 or 2",
);

const gpus: v.GenericSchema<unknown, string> = parsedBy(
  (input) =>
    /^(all|[1-9]\d{0,2}|device=[\w-]+(,[\w-]+)*)$/.test(String(input)) ? String(input) : undefined,
  "a choice of GPUs",
  "all, how many, or device=ID with IDs joined by commas",
);

/** Docker refuses less. Source: moby, daemon/daemon_unix.go, linuxMinMemory. */
const MEMORY_MIN_BYTES = 6 * 1024 * 1024;

const memory: v.GenericSchema<unknown, string> = parsedBy(
  (input) => {
    const isSize = typeof input === "string" && /^\d+(\.\d+)?(b|[kmg]b?)$/i.test(input);
    return isSize && (parseByteSize(input) ?? 0) >= MEMORY_MIN_BYTES ? input : undefined;
  },
  "an amount of memory",
  "a number with its unit, at least 6m, e.g. 512m or 2g",
);

/** Schema of `logging`. */
export const LoggingSchema = keys({
  driver: matching(/^[a-z][a-z0-9-]{0,49}$/, "a log driver", "e.g. json-file, local or journald"),
  options: v.optional(
    v.pipe(
      mapOf(scalar),
      v.check(
        (options) => Object.keys(options).every((name) => /^[\w][\w.-]*$/.test(name)),
        problem("an option has a name that no log driver takes", "e.g. max-size"),
      ),
    ),
    {},
  ),
});

const commandWords = v.lazy((input): v.GenericSchema<unknown, string | string[]> =>
  Array.isArray(input)
    ? list(v.pipe(scalar, v.transform(String)))
    : text("a command or a list of its words")
);

const SERVERS_NOTE = "unknown key, did you mean hosts? It lists names of `servers`";

/** Schema of one service. */
export const ServiceSchema = keys({
  image: v.optional(
    matching(/^[\w][\w./:@-]*$/, "an image", "e.g. nginx:1.29 or ghcr.io/user/app:2.0"),
  ),
  build: v.optional(build),
  hosts: list(text("the name of a server")),
  ports: v.optional(list(portMapping), []),
  volumes: v.optional(list(volume), []),
  files: v.optional(list(mount), []),
  directories: v.optional(list(mount), []),
  environment: v.optional(v.unknown()),
  command: v.optional(commandWords),
  network_mode: v.optional(
    matching(
      /^(bridge|host|none|container:[\w][\w.-]*)$/,
      "a network mode",
      "bridge, host, none or container:NAME",
    ),
    "bridge",
  ),
  cpus: v.optional(cpus),
  memory: v.optional(memory),
  gpus: v.optional(gpus),
  devices: v.optional(
    list(matching(
      /^\/[^\s,:]+(:\/[^\s,:]+)?(:[rwm]{1,3})?$/,
      "a device",
      "e.g. /dev/ttyUSB0 or /dev/sda:/dev/xvda:rw",
    )),
    [],
  ),
  privileged: v.optional(flag(), false),
  cap_add: v.optional(list(matching(/^[A-Z_]+$/, "a capability", "capitals, e.g. NET_ADMIN")), []),
  stop_first: v.optional(flag(), false),
  scale: v.optional(wholeNumber("a number of instances", { min: 1, max: 100 }), 1),
  release_command: v.optional(commandWords),
  release_timeout: v.optional(duration({ minMs: 1_000, maxMs: 86_400_000 }), "5m"),
  restart: v.optional(oneOf(["unless-stopped", "always", "on-failure", "no"]), "unless-stopped"),
  retain: v.optional(wholeNumber("a number of versions", { min: 1, max: 1_000 }), 3),
  stop_grace: v.optional(duration({ minMs: 1_000, maxMs: 86_400_000 }), "10s"),
  drain_timeout: v.optional(duration({ minMs: 1_000, maxMs: 86_400_000 })),
  logging: v.optional(LoggingSchema),
  labels: v.optional(
    v.pipe(
      mapOf(scalar),
      v.check(
        (labels) => !Object.keys(labels).some((name) => name.startsWith("jiji.")),
        problem("labels that start with `jiji.` belong to jiji"),
      ),
      v.check(
        (labels) => Object.keys(labels).every((name) => /^[\w][\w./-]*$/.test(name)),
        problem("a label has a name that no engine takes", "letters, digits, dots, - and /"),
      ),
    ),
    {},
  ),
  proxy: v.optional(v.unknown()),
  healthcheck: v.optional(HealthCheckSchema),
}, {
  servers: SERVERS_NOTE,
  host: SERVERS_NOTE,
  env: "unknown key, did you mean environment?",
  replicas: "unknown key, did you mean scale?",
  crons: "cron jobs are not supported yet",
  health_check: "unknown key, did you mean healthcheck?",
});

/** Values of {@link ServiceSchema}. */
export type ServiceValues = v.InferOutput<typeof ServiceSchema>;
