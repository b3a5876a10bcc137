/** Self-extracting executables: a POSIX shell header, the program, the Deno runtime. */

/** What goes into one executable. */
export interface PackOptions {
  /** Folder with the bundled program. */
  readonly folder: string;
  /** File in it to run. */
  readonly entry: string;
  /** Flags of `deno run`: permissions. */
  readonly flags: readonly string[];
  /** Path of the executable to write. */
  readonly output: string;
  /** Path of the Deno executable to pack. */
  readonly runtime: string;
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function gzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The runtime compresses once per version and is kept beside the prepared things. */
async function packedRuntime(path: string): Promise<{ id: string; gz: Uint8Array<ArrayBuffer> }> {
  const bytes = await Deno.readFile(path);
  const id = (await sha256(bytes)).slice(0, 16);
  const cache = Deno.env.get("JIJI_CACHE");
  const cached = cache === undefined ? undefined : `${cache}/runtime/${id}.gz`;
  if (cached !== undefined) {
    try {
      return { id, gz: await Deno.readFile(cached) };
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  const gz = await gzip(bytes);
  if (cached !== undefined) {
    await Deno.mkdir(`${cache}/runtime`, { recursive: true });
    await Deno.writeFile(`${cached}.${Deno.pid}`, gz);
    await Deno.rename(`${cached}.${Deno.pid}`, cached);
  }
  return { id, gz };
}

async function tarGz(folder: string): Promise<Uint8Array<ArrayBuffer>> {
  const output = await new Deno.Command("tar", {
    args: ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-C", folder, "-cf", "-", "."],
  }).output();
  if (!output.success) throw new Error(`tar: ${new TextDecoder().decode(output.stderr)}`);
  return await gzip(output.stdout);
}

/** `'` is the only character that single quotes in sh do not keep. */
function shellQuote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

interface HeaderFacts {
  readonly entry: string;
  readonly flags: readonly string[];
  readonly runtimeId: string;
  readonly appId: string;
  readonly appBytes: number;
}

/**
 * The shell header, padded to a fixed length so that it can name its own offsets. It unpacks into
 * /var/cache/jiji (root) or the user's cache, once per content, by rename, so that parallel first
 * runs and kills do no harm. An unprivileged service finds what root unpacked.
 */
function renderHeader(facts: HeaderFacts, headerBytes: number): string {
  const flags = facts.flags.map(shellQuote).join(" ");
  const script = `#!/bin/sh
# jiji: unpacks its program and runtime once, then runs them. Built by bin/build.
set -eu
runtime=${facts.runtimeId} app=${facts.appId}
shared=/var/cache/jiji
if [ -x "$shared/$runtime/deno" ] && [ -f "$shared/$app/${facts.entry}" ]; then base=$shared
elif [ "$(id -u)" = 0 ] && mkdir -p "$shared" 2>/dev/null && [ -w "$shared" ]; then base=$shared
else base=\${XDG_CACHE_HOME:-\${HOME:-/tmp/jiji-$(id -u)}/.cache}/jiji; fi
stage=
fail() {
  [ -z "$stage" ] || rm -rf "$stage"
  echo "$0: cannot unpack itself into $base: make room there, or set XDG_CACHE_HOME" >&2
  exit 1
}
begin() { mkdir -p "$base" 2>/dev/null && stage=$(mktemp -d "$base/.stage.XXXXXX" 2>/dev/null); }
keep() { chmod 755 "$stage"; mv -T "$stage" "$base/$1" 2>/dev/null || rm -rf "$stage"; }
if [ ! -x "$base/$runtime/deno" ]; then
  begin || fail
  tail -c +${headerBytes + facts.appBytes + 1} "$0" | gzip -dc >"$stage/deno" || fail
  chmod 755 "$stage/deno"; keep "$runtime"
fi
if [ ! -f "$base/$app/${facts.entry}" ]; then
  begin || fail
  tail -c +${
    headerBytes + 1
  } "$0" | head -c ${facts.appBytes} | gzip -dc | tar -xf - -C "$stage" || fail
  keep "$app"
fi
export JIJI_EXECUTABLE="$0" DENO_NO_UPDATE_CHECK=1 DENO_DIR="$base/deno-$(id -u)"
exec "$base/$runtime/deno" run --quiet --no-prompt --no-config --no-lock --no-remote --unstable-net \\
  ${flags} "$base/$app/${facts.entry}" "$@"
`;
  if (script.length > headerBytes) throw new Error(`header needs ${script.length} bytes`);
  return script + "#".repeat(headerBytes - script.length - 1) + "\n";
}

/** Writes the executable, by rename, mode 755. */
export async function packExecutable(options: PackOptions): Promise<void> {
  const headerBytes = 4096;
  const [app, runtime] = [await tarGz(options.folder), await packedRuntime(options.runtime)];
  const header = renderHeader({
    entry: options.entry,
    flags: options.flags,
    runtimeId: runtime.id,
    appId: (await sha256(app)).slice(0, 16),
    appBytes: app.length,
  }, headerBytes);
  const stage = `${options.output}.${Deno.pid}`;
  const file = await Deno.open(stage, { write: true, create: true, truncate: true, mode: 0o755 });
  try {
    for (const part of [new TextEncoder().encode(header), app, runtime.gz]) {
      for (let written = 0; written < part.length;) {
        written += await file.write(part.subarray(written));
      }
    }
  } finally {
    file.close();
  }
  await Deno.rename(stage, options.output);
}
