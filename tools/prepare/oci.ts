/** Container images made without an engine, in the storage format of Docker's registry. */
import { runCommand } from "./command.ts";

const LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const CONFIG_TYPE = "application/vnd.docker.container.image.v1+json";
const MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json";

/** How the containers of an image run. Source: OCI image-spec, config.md, "config". */
export interface ImageRuntime {
  /** Command and arguments. */
  readonly cmd: readonly string[];
  /** Variables, `NAME=value`. */
  readonly env: readonly string[];
  /** User name or number; without it, root. */
  readonly user?: string;
  /** Folder it starts in. */
  readonly workingDir?: string;
  /** Ports it listens on, `80/tcp`. */
  readonly exposedPorts?: readonly string[];
}

/** A blob in the registry. */
export interface Blob {
  /** `sha256:` and 64 hex digits. */
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return `sha256:${digest.toHex()}`;
}

/** Image configuration of a one-layer image. */
export function renderImageConfig(runtime: ImageRuntime, layerDigest: string): string {
  const ports = Object.fromEntries((runtime.exposedPorts ?? []).map((port) => [port, {}]));
  return JSON.stringify({
    architecture: "amd64",
    os: "linux",
    created: "2024-01-01T00:00:00Z",
    config: {
      Cmd: runtime.cmd,
      Env: runtime.env,
      ...(runtime.user === undefined ? {} : { User: runtime.user }),
      ...(runtime.workingDir === undefined ? {} : { WorkingDir: runtime.workingDir }),
      ...(runtime.exposedPorts === undefined ? {} : { ExposedPorts: ports }),
    },
    rootfs: { type: "layers", diff_ids: [layerDigest] },
    history: [{ created: "2024-01-01T00:00:00Z", created_by: "jiji lab" }],
  });
}

/** Manifest of a one-layer image. Source: distribution "Image Manifest Version 2, Schema 2". */
export function renderManifest(config: Blob, layer: Blob): string {
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: { mediaType: CONFIG_TYPE, ...config },
    layers: [{ mediaType: LAYER_TYPE, ...layer }],
  });
}

/**
 * Files a registry's storage has for one manifest: paths below `docker/registry/v2`, with their
 * content. Source: distribution 2.8, registry/storage/paths.go.
 */
export function registryLinks(
  repository: string,
  image: {
    readonly tags: readonly string[];
    readonly manifest: string;
    readonly blobs: readonly string[];
  },
): ReadonlyMap<string, string> {
  const base = `repositories/${repository}`;
  const hex = (digest: string) => digest.replace("sha256:", "");
  const links = new Map<string, string>();
  const revision = `_manifests/revisions/sha256/${hex(image.manifest)}/link`;
  links.set(`${base}/${revision}`, image.manifest);
  for (const tag of image.tags) {
    const folder = `${base}/_manifests/tags/${tag}`;
    links.set(`${folder}/current/link`, image.manifest);
    links.set(`${folder}/index/sha256/${hex(image.manifest)}/link`, image.manifest);
  }
  for (const blob of image.blobs) links.set(`${base}/_layers/sha256/${hex(blob)}/link`, blob);
  return links;
}

async function writeBlob(storage: string, bytes: Uint8Array<ArrayBuffer>): Promise<Blob> {
  const digest = await sha256(bytes);
  const hex = digest.replace("sha256:", "");
  const folder = `${storage}/blobs/sha256/${hex.slice(0, 2)}/${hex}`;
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeFile(`${folder}/data`, bytes);
  return { digest, size: bytes.length };
}

/** Puts a folder as a one-layer image into a registry's storage folder. */
export async function writeImage(
  storageRoot: string,
  image: {
    readonly repository: string;
    readonly tags: readonly string[];
    readonly folder: string;
    readonly runtime: ImageRuntime;
  },
): Promise<void> {
  const storage = `${storageRoot}/docker/registry/v2`;
  const tar = `${image.folder}.tar`;
  const same = ["--sort=name", "--mtime=@1704067200", "--numeric-owner"];
  await runCommand(["tar", ...same, "-C", image.folder, "-cf", tar, "."]);
  const plain = await Deno.readFile(tar);
  await runCommand(["gzip", "-n", "-1", tar]);
  const layer = await writeBlob(storage, await Deno.readFile(`${tar}.gz`));
  await Deno.remove(`${tar}.gz`);
  const text = new TextEncoder();
  const config = renderImageConfig(image.runtime, await sha256(plain));
  const configBlob = await writeBlob(storage, text.encode(config));
  const manifest = await writeBlob(storage, text.encode(renderManifest(configBlob, layer)));
  const links = registryLinks(image.repository, {
    tags: image.tags,
    manifest: manifest.digest,
    blobs: [layer.digest, configBlob.digest],
  });
  for (const [path, content] of links) {
    const full = `${storage}/${path}`;
    await Deno.mkdir(full.slice(0, full.lastIndexOf("/")), { recursive: true });
    await Deno.writeTextFile(full, content);
  }
}
