import { JijiError, messageOf, randomHex } from "@jiji/core";
import {
  digestOf,
  ImageStore,
  isDigest,
  isRepository,
  isTag,
  MANIFEST_BYTES_MAX,
  type Upload,
} from "./image_store.ts";

/** A running registry. */
export interface RunningRegistry extends AsyncDisposable {
  /** Port where this machine's engine pushes and pulls. */
  readonly port: number;
  /** Port that only serves: the servers reach this one through their SSH connection. */
  readonly readOnlyPort: number;
}

/** Where the registry keeps images and listens. */
export interface RegistryOptions {
  readonly folder: string;
  readonly port: number;
}

interface Handling {
  readonly store: ImageStore;
  readonly uploads: Map<string, Upload>;
  readonly writable: boolean;
}

/**
 * A registry of container images inside this process, on loopback, while a deploy runs: no
 * container to pull, nothing left running afterwards. Source: OCI distribution spec 1.1.
 *
 * @throws {JijiError} when the port is taken.
 */
export function startImageRegistry(options: RegistryOptions): RunningRegistry {
  const store = new ImageStore(options.folder);
  store.removeAbandonedUploads(Date.now());
  const uploads = new Map<string, Upload>();
  const serve = (port: number, writable: boolean) =>
    Deno.serve(
      {
        hostname: "127.0.0.1",
        port,
        onListen: () => undefined,
        // The engine shows this text; our own terminal belongs to the deploy.
        onError: (error) => refuse(500, "UNKNOWN", messageOf(error)),
      },
      (request) => handle(request, { store, uploads, writable }),
    );
  try {
    const full = serve(options.port, true);
    const readOnly = serve(0, false);
    return {
      port: full.addr.port,
      readOnlyPort: readOnly.addr.port,
      async [Symbol.asyncDispose]() {
        await Promise.all([full.shutdown(), readOnly.shutdown()]);
      },
    };
  } catch (cause) {
    if (!(cause instanceof Deno.errors.AddrInUse)) throw cause;
    throw new JijiError(`port ${options.port} of this machine is taken`, {
      hint: "another jiji deploys from here, or another program listens there: wait for it, or " +
        "set builder.registry.port",
      cause,
    });
  }
}

async function handle(request: Request, handling: Handling): Promise<Response> {
  const url = new URL(request.url);
  if (url.pathname === "/v2/" || url.pathname === "/v2") return Response.json({});
  const blob = /^\/v2\/(.+)\/blobs\/(sha256:[a-f0-9]{64})$/.exec(url.pathname);
  if (blob) return await serveBlob(request, blob[2]!, handling.store);
  const manifest = /^\/v2\/(.+)\/manifests\/([^/]+)$/.exec(url.pathname);
  if (manifest) return await manifestRequest(request, handling, [manifest[1]!, manifest[2]!]);
  const upload = /^\/v2\/(.+)\/blobs\/uploads\/([a-f0-9]*)$/.exec(url.pathname);
  if (upload && handling.writable) {
    return await uploadRequest(request, url, { handling, repository: upload[1]!, id: upload[2]! });
  }
  return refuse(404, "UNSUPPORTED", "no such thing here");
}

function refuse(status: number, code: string, message: string): Response {
  return Response.json({ errors: [{ code, message }] }, { status });
}

async function serveBlob(request: Request, digest: string, store: ImageStore): Promise<Response> {
  const size = await store.blobSize(digest);
  if (size === undefined) return refuse(404, "BLOB_UNKNOWN", "blob unknown");
  const headers = {
    "content-length": String(size),
    "content-type": "application/octet-stream",
    "docker-content-digest": digest,
  };
  if (request.method === "HEAD") return new Response(null, { headers });
  if (request.method !== "GET") return refuse(405, "UNSUPPORTED", "method not allowed");
  return new Response(await store.openBlob(digest), { headers });
}

async function manifestRequest(
  request: Request,
  handling: Handling,
  [repository, reference]: readonly [string, string],
): Promise<Response> {
  if (!isRepository(repository) || !(isDigest(reference) || isTag(reference))) {
    return refuse(400, "NAME_INVALID", "invalid name");
  }
  if (request.method === "PUT" && handling.writable) {
    const bytes = new Uint8Array(await request.arrayBuffer());
    if (bytes.length > MANIFEST_BYTES_MAX) return refuse(413, "MANIFEST_INVALID", "too large");
    if (isDigest(reference) && reference !== digestOf(bytes)) {
      return refuse(400, "DIGEST_INVALID", "the manifest does not have this digest");
    }
    const mediaType = request.headers.get("content-type") ?? "application/octet-stream";
    const digest = await handling.store.putManifest(repository, { reference, mediaType, bytes });
    return new Response(null, {
      status: 201,
      headers: {
        location: `/v2/${repository}/manifests/${digest}`,
        "docker-content-digest": digest,
      },
    });
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    return refuse(405, "UNSUPPORTED", "method not allowed");
  }
  const found = await handling.store.getManifest(repository, reference);
  if (!found) return refuse(404, "MANIFEST_UNKNOWN", "manifest unknown");
  const headers = {
    "content-type": found.mediaType,
    "content-length": String(found.bytes.length),
    "docker-content-digest": found.digest,
  };
  return new Response(request.method === "HEAD" ? null : found.bytes, { headers });
}

interface UploadTarget {
  readonly handling: Handling;
  readonly repository: string;
  readonly id: string;
}

async function uploadRequest(
  request: Request,
  url: URL,
  target: UploadTarget,
): Promise<Response> {
  const { handling, repository } = target;
  if (!isRepository(repository)) return refuse(400, "NAME_INVALID", "invalid name");
  if (request.method === "POST") return await beginUpload(request, url, target);
  const upload = handling.uploads.get(target.id);
  if (!upload) return refuse(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown");
  if (request.method === "PATCH") {
    await append(request, handling, { upload, id: target.id });
    return accepted(target, upload);
  }
  if (request.method === "PUT") {
    await append(request, handling, { upload, id: target.id });
    handling.uploads.delete(target.id);
    return await finishUpload(url.searchParams.get("digest") ?? "", { upload, repository });
  }
  if (request.method === "DELETE") {
    handling.uploads.delete(target.id);
    await upload.discard();
    return new Response(null, { status: 204 });
  }
  return refuse(405, "UNSUPPORTED", "method not allowed");
}

/** An upload whose body broke off is forgotten: its bytes are gone. */
async function append(
  request: Request,
  handling: Handling,
  { upload, id }: { readonly upload: Upload; readonly id: string },
): Promise<void> {
  try {
    await upload.append(request.body);
  } catch (error) {
    handling.uploads.delete(id);
    throw error;
  }
}

async function beginUpload(request: Request, url: URL, target: UploadTarget): Promise<Response> {
  const { handling, repository } = target;
  // All repositories share their blobs, so mounting from another one is just looking.
  const mount = url.searchParams.get("mount") ?? "";
  if (isDigest(mount) && await handling.store.blobSize(mount) !== undefined) {
    return created(repository, mount);
  }
  const upload = await handling.store.beginUpload();
  const digest = url.searchParams.get("digest");
  if (digest !== null) {
    await upload.append(request.body);
    return await finishUpload(digest, { upload, repository });
  }
  await request.body?.cancel();
  const id = randomHex(16);
  handling.uploads.set(id, upload);
  return accepted({ ...target, id }, upload);
}

async function finishUpload(
  digest: string,
  { upload, repository }: { readonly upload: Upload; readonly repository: string },
): Promise<Response> {
  if (!isDigest(digest) || !(await upload.finish(digest))) {
    await upload.discard();
    return refuse(400, "DIGEST_INVALID", "the bytes do not have this digest");
  }
  return created(repository, digest);
}

function accepted(target: UploadTarget, upload: Upload): Response {
  return new Response(null, {
    status: 202,
    headers: {
      location: `/v2/${target.repository}/blobs/uploads/${target.id}`,
      range: `0-${Math.max(upload.bytes - 1, 0)}`,
      "docker-upload-uuid": target.id,
    },
  });
}

function created(repository: string, digest: string): Response {
  return new Response(null, {
    status: 201,
    headers: {
      location: `/v2/${repository}/blobs/${digest}`,
      "docker-content-digest": digest,
    },
  });
}
