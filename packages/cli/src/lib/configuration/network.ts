import { isAbsolute, join } from "node:path";
import * as v from "valibot";
import { WIREGUARD_PORT } from "@jiji/core/cluster";
import { type Cidr, cidrsOverlap, normalizeIp, parseCidr } from "@jiji/core/net";
import { invariant } from "@jiji/core/runtime";
import { BaseConfiguration, type ConfigContext, type Report } from "./base.ts";
import type { OnFailure } from "./config_types.ts";
import { closestWord } from "./format/suggestions.ts";
import {
  duration,
  flag,
  keys,
  list,
  mapOf,
  matching,
  oneOf,
  port,
  problem,
  quote,
  REFERENCE_NAME,
  text,
  wholeNumber,
} from "./format/schema_parts.ts";

/** Networks that no cluster may use. Source: RFC 6890 section 2.2.2 and RFC 1112 section 4. */
const RESERVED = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"];

/** Names that resolvers treat in their own way. Source: RFC 6761 section 6, RFC 6762 section 3. */
const SPECIAL_DOMAINS = ["arpa", "invalid", "local", "localhost", "onion", "test"];

/** Domains that are split off: labels of letters, digits, hyphens and underscores. */
const DOMAIN = /^[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*$/;

/** Schema of `network.dns`. */
export const NetworkDnsSchema = keys({
  forward: v.optional(
    mapOf(list(v.pipe(
      text("an address"),
      v.check(
        (value) => normalizeIp(value) !== undefined,
        (issue) => problem(`${quote(issue.input)} is not an address`, "IPv4 or IPv6, no port"),
      ),
      v.transform((value) => normalizeIp(value) ?? value),
    ))),
    {},
  ),
});

/** Schema of `network.public_ip` when it is more than true or false. */
export const PublicIpSchema = keys({
  sources: v.pipe(
    list(v.pipe(
      text("a URL"),
      v.check(
        (value) => /^https?:\/\/[!-~]{1,200}$/.test(value) && URL.canParse(value),
        (issue) => problem(`${quote(issue.input)} is not a URL`, "e.g. https://api.ipify.org"),
      ),
    )),
    v.minLength(1, problem("nobody is asked", "at least one URL, or write public_ip: false")),
    v.maxLength(8, problem("too many sources", "at most 8")),
  ),
});

/** Schema of `network`. */
export const NetworkSchema = keys({
  enabled: v.optional(
    v.pipe(
      flag(),
      v.check((on) => on, problem("deploying without the mesh is not supported yet", "write true")),
    ),
    true,
  ),
  cluster_cidr: v.optional(
    v.pipe(
      v.unknown(),
      v.check(
        (input) => typeof input === "string" && parseCidr(input) !== undefined,
        (issue) =>
          problem(
            `${quote(issue.input)} is not an IPv4 network`,
            "its first address and a prefix, e.g. 10.210.0.0/16",
          ),
      ),
      v.transform(String),
    ),
    "10.210.0.0/16",
  ),
  block_size: v.optional(wholeNumber("a prefix length", { min: 16, max: 28 }), 24),
  wireguard_port: v.optional(port(), WIREGUARD_PORT),
  service_domain: v.optional(
    v.pipe(
      matching(
        /^(?=.{1,30}$)[a-z][a-z0-9]*(-[a-z0-9]+)*$/,
        "a domain for services",
        "one word in lower case, e.g. jiji or internal",
      ),
      v.check(
        (domain) => !SPECIAL_DOMAINS.includes(domain),
        (issue) => problem(`${quote(issue.input)} has a meaning of its own`, "e.g. internal"),
      ),
    ),
    "jiji",
  ),
  public_ip: v.optional(
    v.lazy((input): v.GenericSchema<unknown, boolean | { sources: string[] }> =>
      typeof input === "boolean" ? flag() : PublicIpSchema
    ),
    true,
  ),
  dns: v.optional(NetworkDnsSchema, {}),
  corrosion: v.optional(text("the path or URL of a Corrosion binary")),
}, {
  discovery: "discovery is always Corrosion",
});

type NetworkValues = v.InferOutput<typeof NetworkSchema>;

/** The mesh between the servers. */
export class NetworkConfiguration extends BaseConfiguration<NetworkValues> {
  /** @param context with the document that holds `network`. */
  constructor(context: ConfigContext) {
    super(context, ["network"], NetworkSchema);
  }

  /** Domain of service names, one label. */
  get serviceDomain(): string {
    return this.values.service_domain;
  }

  /** Whether there is a mesh; always so. */
  get enabled(): boolean {
    return this.values.enabled;
  }

  /** Network that is cut into one block a server. */
  get clusterCidr(): Cidr {
    const cidr = parseCidr(this.values.cluster_cidr);
    invariant(cidr !== undefined, "cluster_cidr was validated");
    return cidr;
  }

  /** The same as text. */
  get clusterCidrText(): string {
    return this.values.cluster_cidr;
  }

  /** Prefix length of a server's block. */
  get blockPrefix(): number {
    return this.values.block_size;
  }

  /** WireGuard's UDP port on every server. */
  get wireguardPort(): number {
    return this.values.wireguard_port;
  }

  /** URLs that answer a server's public address; undefined: the usual ones; none: nobody is asked. */
  get publicIpSources(): readonly string[] | undefined {
    const { public_ip } = this.values;
    if (typeof public_ip === "boolean") return public_ip ? undefined : [];
    return public_ip.sources;
  }

  /** Resolvers of split zones: addresses by domain. */
  get dnsForward(): Readonly<Record<string, readonly string[]>> {
    return this.values.dns.forward;
  }

  /** Absolute path or https URL of a Corrosion binary to install instead of the pinned release. */
  get corrosion(): string | undefined {
    const { corrosion } = this.values;
    return corrosion === undefined ? undefined : this.#resolveBinary(corrosion);
  }

  protected override check(values: NetworkValues, report: Report): void {
    const cidr = parseCidr(values.cluster_cidr);
    if (cidr === undefined) return;
    const reserved = RESERVED.find((text) => {
      const other = parseCidr(text);
      return other !== undefined && cidrsOverlap(cidr, other);
    });
    if (reserved !== undefined) {
      report(["cluster_cidr"], `${values.cluster_cidr} overlaps ${reserved}, which is reserved`, {
        fix: "a private network, e.g. 10.210.0.0/16",
      });
    }
    if (cidr.prefix < 8 || cidr.prefix > values.block_size) {
      report(["cluster_cidr"], `${values.cluster_cidr} can't be cut into /${values.block_size}s`, {
        fix: `a prefix from 8 to ${values.block_size}`,
      });
    }
    for (const [domain, resolvers] of Object.entries(values.dns.forward)) {
      const isOurs = `.${domain}`.endsWith(`.${values.service_domain}`);
      if (isOurs || !DOMAIN.test(domain)) {
        report(["dns", "forward", domain], `${domain} is not a domain that can be forwarded`, {
          fix: `a domain in lower case other than ${values.service_domain}, e.g. corp.example`,
        });
      }
      if (resolvers.length === 0) {
        report(["dns", "forward", domain], `${domain} has no resolver`, {
          fix: "write the addresses of its DNS servers",
        });
      }
    }
    if (values.corrosion !== undefined && this.#resolveBinary(values.corrosion) === undefined) {
      report(["corrosion"], `${values.corrosion} is not set`, {
        fix: `set it in ${this.context.secrets.lookedIn()} or export it`,
      });
    }
  }

  #resolveBinary(written: string): string | undefined {
    const { home, projectRoot, secrets } = this.context;
    const value = REFERENCE_NAME.test(written)
      ? secrets.find(written, { alwaysHost: true })?.reveal()
      : written;
    if (value === undefined || /^https?:\/\//.test(value) || isAbsolute(value)) return value;
    if (value.startsWith("~/") && home !== undefined) return join(home, value.slice(2));
    return join(projectRoot, value);
  }
}

/** Schema of `deploy`. */
export const DeploySchema = keys({
  max_parallel: v.optional(wholeNumber("a number of servers", { min: 1, max: 1_000 }), 10),
  on_failure: v.optional(oneOf(["rollback", "keep"]), "rollback"),
  health_timeout: v.optional(duration({ minMs: 1_000, maxMs: 3_600_000 }), "30s"),
  drain_timeout: v.optional(duration({ minMs: 1, maxMs: 3_600_000 }), "30s"),
  canary: v.optional(
    v.lazy((input): v.GenericSchema<unknown, string | string[]> =>
      Array.isArray(input) ? list(text("the name of a server")) : text("the name of a server")
    ),
  ),
  canary_wait: v.optional(duration({ minMs: 1, maxMs: 3_600_000 }), "10s"),
});

type DeployValues = v.InferOutput<typeof DeploySchema>;

/** How a deploy goes over the servers. */
export class DeployConfiguration extends BaseConfiguration<DeployValues> {
  /** @param context with the document that holds `deploy`. */
  constructor(context: ConfigContext) {
    super(context, ["deploy"], DeploySchema);
  }

  /** Servers that deploy at once. */
  get maxParallel(): number {
    return this.values.max_parallel;
  }

  /** What happens to servers that had switched when another fails. */
  get onFailure(): OnFailure {
    return this.values.on_failure;
  }

  /** How long a new container may take to become healthy, unless its health check says. */
  get healthTimeoutMs(): number {
    return this.values.health_timeout;
  }

  /** Servers that get the new version first, alone; none when deploys go everywhere at once. */
  get canary(): readonly string[] {
    const { canary } = this.values;
    return canary === undefined ? [] : typeof canary === "string" ? [canary] : canary;
  }

  /** How long the new version must stay healthy there before the other servers follow. */
  get canaryWaitMs(): number {
    return this.values.canary_wait;
  }

  protected override check(values: DeployValues, report: Report): void {
    const servers = Object.keys(this.context.document.at(["servers"]) ?? {});
    const names = values.canary === undefined
      ? []
      : typeof values.canary === "string"
      ? [values.canary]
      : values.canary;
    for (const name of names) {
      if (servers.includes(name)) continue;
      const meant = closestWord(name, servers);
      report(["canary"], `${quote(name)} is not a server`, {
        fix: meant === undefined ? `servers: ${servers.join(", ")}` : `did you mean ${meant}?`,
      });
    }
  }

  /** How long requests under way may take to finish on the old container. */
  get drainTimeoutMs(): number {
    return this.values.drain_timeout;
  }
}
