/** Certificates that users bring for the proxy: judged before anything changes, then shipped. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { PROXY_CERTIFICATES, PROXY_VOLUME_TARGET, proxyTargetName, Secret } from "@jiji/core";
import { sha256OfText } from "../network/artifacts.ts";
import type { Configuration } from "../configuration/configuration.ts";
import type { ConfigIssue } from "../configuration/config_issue.ts";
import type { ServiceConfiguration } from "../configuration/service.ts";
import type { ShippedCertificate } from "../../types/deployment.ts";

/** A certificate that ends sooner is warned about, milliseconds. */
const EXPIRES_SOON_MS = 14 * 24 * 60 * 60 * 1000;
/** Digits of the content's hash in a file's name; the key makes it impossible to guess from. */
const NAME_DIGITS = 16;

/** A pair in PEM form as the secrets hold it. */
export interface CertificatePair {
  readonly certificate: string;
  readonly privateKey: string;
}

/** What is wrong with a pair: `error` stops the deploy, `warning` is told. */
export interface CertificateFinding {
  readonly severity: "error" | "warning";
  readonly about: "certificate_pem" | "private_key_pem";
  readonly message: string;
}

/** Text of a PEM secret; env files often write line breaks as `\n`. */
export function normalPem(text: string): string {
  const lines = text.replaceAll("\\n", "\n").replaceAll("\r", "").trim();
  return `${lines}\n`;
}

/** Problems of a pair for these hosts at an instant, Unix ms. Pure. */
export function judgeCertificate(
  pair: CertificatePair,
  facts: { readonly hosts: readonly string[]; readonly nowMs: number },
): CertificateFinding[] {
  let leaf: X509Certificate;
  try {
    leaf = new X509Certificate(normalPem(pair.certificate));
  } catch {
    return [error("certificate_pem", "it is not a certificate in PEM form")];
  }
  const found: CertificateFinding[] = [];
  try {
    if (!leaf.checkPrivateKey(createPrivateKey(normalPem(pair.privateKey)))) {
      found.push(error("private_key_pem", "the key belongs to another certificate"));
    }
  } catch {
    found.push(error("private_key_pem", "it is not a private key in PEM form without passphrase"));
  }
  const fromMs = Date.parse(leaf.validFrom);
  const toMs = Date.parse(leaf.validTo);
  const day = (ms: number) => new Date(ms).toISOString().slice(0, 10);
  if (toMs <= facts.nowMs) found.push(error("certificate_pem", `it expired on ${day(toMs)}`));
  else if (fromMs > facts.nowMs) {
    found.push(error("certificate_pem", `it is not valid before ${day(fromMs)}`));
  } else if (toMs - facts.nowMs < EXPIRES_SOON_MS) {
    found.push(warning(`it expires on ${day(toMs)}`));
  }
  const names = certificateNames(leaf);
  const missing = facts.hosts.filter((host) => !names.some((name) => covers(name, host)));
  if (missing.length > 0) {
    found.push(warning(`it does not name ${missing.join(", ")}, only ${names.join(", ")}`));
  }
  return found;
}

function error(about: CertificateFinding["about"], message: string): CertificateFinding {
  return { severity: "error", about, message };
}

function warning(message: string): CertificateFinding {
  return { severity: "warning", about: "certificate_pem", message };
}

/** DNS names of a certificate, lower case. Source: RFC 5280 section 4.2.1.6. */
function certificateNames(certificate: X509Certificate): string[] {
  const text = certificate.subjectAltName ?? "";
  return text.split(",").map((part) => part.trim()).filter((part) => part.startsWith("DNS:"))
    .map((part) => part.slice("DNS:".length).toLowerCase());
}

/** Whether a certificate's name is good for a host. Source: RFC 6125 section 6.4.3. */
function covers(name: string, host: string): boolean {
  if (name === host) return true;
  return name.startsWith("*.") && !host.startsWith("*.") &&
    host.slice(host.indexOf(".") + 1) === name.slice(2);
}

/** The certificate as it lies on servers: a file with chain and key, named by what is in it. */
export function shippedCertificate(target: string, pair: CertificatePair): ShippedCertificate {
  const pem = normalPem(pair.certificate) + normalPem(pair.privateKey);
  const hash = sha256OfText(pem).slice(0, NAME_DIGITS);
  return { name: `${target}-${hash}.pem`, pem: new Secret(pem) };
}

/** Where kamal-proxy finds a shipped certificate. */
export function certificatePath(certificate: ShippedCertificate): string {
  return `${PROXY_VOLUME_TARGET}/${PROXY_CERTIFICATES}/${certificate.name}`;
}

/** Certificates of a service by `app_port`. */
export type ServiceCertificates = ReadonlyMap<number, ShippedCertificate>;

/** What {@link readCertificates} found. */
export interface CertificatesRead {
  /** By name of the service; those without certificates of their own are left out. */
  readonly certificates: ReadonlyMap<string, ServiceCertificates>;
  readonly errors: readonly ConfigIssue[];
  readonly warnings: readonly ConfigIssue[];
}

/**
 * Resolves and judges the certificates of services.
 *
 * @throws {ConfigError} when a secret is not set.
 */
export function readCertificates(
  configuration: Configuration,
  services: readonly ServiceConfiguration[],
  nowMs: number,
): CertificatesRead {
  const certificates = new Map<string, Map<number, ShippedCertificate>>();
  const errors: ConfigIssue[] = [];
  const warnings: ConfigIssue[] = [];
  for (const service of services) {
    service.proxy?.targets.forEach((target, index) => {
      if (typeof target.ssl === "boolean") return;
      const { certificatePem, privateKeyPem } = target.ssl;
      const secrets = configuration.resolveSecrets([certificatePem, privateKeyPem]);
      const pair = {
        certificate: secrets.get(certificatePem)!.reveal(),
        privateKey: secrets.get(privateKeyPem)!.reveal(),
      };
      const section = ["services", service.name, "proxy", ...service.proxy!.pathOf(index), "ssl"];
      for (const finding of judgeCertificate(pair, { hosts: target.hosts, nowMs })) {
        const issue = configuration.problem([...section, finding.about], finding.message);
        (finding.severity === "error" ? errors : warnings).push(issue);
      }
      const key = { project: configuration.project, service: service.name };
      const own = certificates.get(service.name) ?? new Map<number, ShippedCertificate>();
      own.set(target.appPort, shippedCertificate(proxyTargetName(key, target.appPort), pair));
      certificates.set(service.name, own);
    });
  }
  return { certificates, errors, warnings };
}
