import { createHash } from "node:crypto";
import { join } from "node:path";
import { randomHex } from "@jiji/core";

/** A content address. Source: OCI image spec 1.1, descriptor.md, "Digests". */
const DIGEST = /^sha256:[a-f0-9]{64}$/;
/** Repository names. Source: OCI distribution spec 1.1, "Pulling manifests". */
const REPOSITORY = /^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$/;
/** Tags, as the same section has them. */
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

/** Largest manifest that registries must accept. Source: OCI distribution spec 1.1. */
export const MANIFEST_BYTES_MAX: number = 4 * 1024 * 1024;

/** An upload's file that nobody wrote to for this long was left by a killed process, ms. */
const ABANDONED_AFTER_MS = 3_600_000;

/** A manifest with the media type it was pushed as. */
export interface StoredManifest {
  readonly digest: string;
  readonly mediaType: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Digest of these bytes. */
export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** Whether a text is a digest we know how to check. */
export function isDigest(text: string): boolean {
  return DIGEST.test(text);
}

/** Whether a text may name a repository: it also becomes a folder. */
export function isRepository(text: string): boolean {
  return text.length <= 255 && REPOSITORY.test(text);
}

/** Whether a text may be a tag: it also becomes a file name. */
export function isTag(text: string): boolean {
  return TAG.test(text);
}

/**
 * Layers and manifests in a folder of this machine, by digest. Files appear by rename once their
 * digest was checked, so that a killed push leaves nothing wrong behind.
 */
export class ImageStore {
  readonly #folder: string;

  /** @param folder made when it is first needed. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  #blobPath(digest: string): string {
    return join(this.#folder, "blobs", digest.replace("sha256:", ""));
  }

  #refPath(repository: string, reference: string): string {
    return join(
      this.#folder,
      "refs",
      ...repository.split("/"),
      `${reference.replace(":", "_")}.json`,
    );
  }

  /** Size of a blob, or undefined when it is not there. */
  async blobSize(digest: string): Promise<number | undefined> {
    try {
      return (await Deno.stat(this.#blobPath(digest))).size;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }

  /** A blob's bytes as a stream. */
  async openBlob(digest: string): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
    return (await Deno.open(this.#blobPath(digest))).readable;
  }

  /** Begins an upload; bytes are appended to its file. */
  async beginUpload(): Promise<Upload> {
    await Deno.mkdir(join(this.#folder, "blobs"), { recursive: true });
    await Deno.mkdir(join(this.#folder, "uploads"), { recursive: true });
    return new Upload(
      join(this.#folder, "uploads", randomHex(16)),
      (digest) => this.#blobPath(digest),
    );
  }

  /** Removes what killed processes left half written; another process may be writing the rest. */
  removeAbandonedUploads(nowMs: number): void {
    const folder = join(this.#folder, "uploads");
    let names: string[];
    try {
      names = [...Deno.readDirSync(folder)].map((entry) => entry.name);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      throw error;
    }
    for (const name of names) {
      try {
        const writtenAtMs = Deno.statSync(join(folder, name)).mtime?.getTime() ?? nowMs;
        if (nowMs - writtenAtMs > ABANDONED_AFTER_MS) Deno.removeSync(join(folder, name));
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
  }

  /** Keeps a manifest under its digest and, when given, a tag. */
  async putManifest(
    repository: string,
    manifest: {
      readonly reference: string;
      readonly mediaType: string;
      readonly bytes: Uint8Array<ArrayBuffer>;
    },
  ): Promise<string> {
    const digest = digestOf(manifest.bytes);
    const upload = await this.beginUpload();
    await upload.append(new Blob([manifest.bytes]).stream());
    await upload.finish(digest);
    const text = JSON.stringify({ digest, mediaType: manifest.mediaType });
    for (const reference of new Set([manifest.reference, digest])) {
      const path = this.#refPath(repository, reference);
      await Deno.mkdir(join(path, ".."), { recursive: true });
      const stage = `${path}.${randomHex(8)}`;
      await Deno.writeTextFile(stage, text);
      await Deno.rename(stage, path);
    }
    return digest;
  }

  /** The manifest a tag or digest stands for. */
  async getManifest(repository: string, reference: string): Promise<StoredManifest | undefined> {
    try {
      const ref = JSON.parse(await Deno.readTextFile(this.#refPath(repository, reference)));
      const digest = String(ref.digest);
      if (!isDigest(digest)) return undefined;
      const bytes = await Deno.readFile(this.#blobPath(digest));
      return { digest, mediaType: String(ref.mediaType), bytes };
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }
}

/** One blob on its way in. */
export class Upload {
  readonly #path: string;
  readonly #target: (digest: string) => string;
  readonly #hash = createHash("sha256");
  #bytes = 0;

  /** @param path file to append to; `target` names the place of a checked blob. */
  constructor(path: string, target: (digest: string) => string) {
    this.#path = path;
    this.#target = target;
  }

  /** Bytes received so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Appends a request body.
   *
   * @throws {Error} when the body breaks off; nothing of the upload is kept then.
   */
  async append(body: ReadableStream<Uint8Array<ArrayBuffer>> | null): Promise<void> {
    const file = await Deno.open(this.#path, { append: true, create: true });
    try {
      for await (const piece of body ?? []) {
        this.#hash.update(piece);
        this.#bytes += piece.length;
        for (let written = 0; written < piece.length;) {
          written += await file.write(piece.subarray(written));
        }
      }
    } catch (error) {
      await this.discard();
      throw error;
    } finally {
      file.close();
    }
  }

  /** Takes the blob over when its bytes have this digest; false and nothing kept otherwise. */
  async finish(digest: string): Promise<boolean> {
    const actual = `sha256:${this.#hash.digest("hex")}`;
    if (actual !== digest) {
      await this.discard();
      return false;
    }
    await Deno.rename(this.#path, this.#target(digest));
    return true;
  }

  /** Gives the upload up and removes its bytes. */
  async discard(): Promise<void> {
    await Deno.remove(this.#path).catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
  }
}
