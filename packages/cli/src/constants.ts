/** Numbers and names of the CLI that are ours to choose; limits of others cite their source. */

/** Image of the proxy. Source: basecamp/kamal-proxy, tag of release 0.9.2. */
export const PROXY_IMAGE = "basecamp/kamal-proxy:v0.9.2";

/** A command that only looks at a server answers within this, milliseconds. */
export const OBSERVE_TIMEOUT_MS = 30_000;
/** Installing packages on a slow server, milliseconds. */
export const INSTALL_TIMEOUT_MS = 600_000;
/** Uploading one executable over a slow line, milliseconds. */
export const UPLOAD_TIMEOUT_MS = 600_000;
/** Pulling an image, milliseconds. */
export const PULL_TIMEOUT_MS = 900_000;
/** A short engine command (rename, stop without grace, remove), milliseconds. */
export const ENGINE_TIMEOUT_MS = 60_000;
/** How long a server may take to join after its units started, milliseconds. */
export const READY_TIMEOUT_MS = 120_000;
/** How long the convergence barrier waits for a server's jiji-dns, milliseconds. */
export const BARRIER_TIMEOUT_MS = 5_000;
/** TTL of jiji-dns' answers: the drain when a server did not answer the barrier, milliseconds. */
export const DNS_TTL_MS = 5_000;

/** A lock not renewed for this long belongs to a dead CLI, seconds. */
export const LOCK_EXPIRY_SECONDS = 30;
/** A server that changes its key is done within this time, or its daemon goes on alone, ms. */
export const KEY_CHANGE_TIMEOUT_MS = 120_000;
/** How often a held lock is renewed, milliseconds. */
export const LOCK_RENEW_MS = 8_000;
