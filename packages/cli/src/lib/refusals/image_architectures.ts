/** For which processors the images are that servers are about to get. */
import * as v from "valibot";
import { OBSERVE_TIMEOUT_MS } from "../../constants.ts";
import type { DesiredService, ObservedHost } from "../../types/deployment.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { mustRunScript } from "../../utils/remote.ts";
import type { EngineName } from "../engine/engine_commands.ts";
import type { ImageArchitectures } from "./plan_refusals.ts";

/** A registry that does not answer sooner is not asked longer, seconds. */
const MANIFEST_SECONDS = 6;

/**
 * Tells for each image its processor when the server has it, else its registry's manifest, base64.
 * Arguments: engine, images. What can't be found out is left out.
 */
const ASK_SCRIPT = `engine=$1; shift
for image in "$@"; do
  if arch=$("$engine" image inspect --format '{{.Architecture}}' "$image" 2>/dev/null); then
    printf '@has %s %s\\n' "$arch" "$image"
  else
    case $engine in
    docker) text=$(timeout ${MANIFEST_SECONDS} docker manifest inspect --verbose "$image" 2>/dev/null) ;;
    *) text=$(timeout ${MANIFEST_SECONDS} "$engine" manifest inspect "$image" 2>/dev/null) ;;
    esac
    [ -z "$text" ] || printf '@manifest %s %s\\n' "$(printf %s "$text" | base64 -w0)" "$image"
  fi
done
`;

/**
 * Images that a server gets by this wish and does not run yet. An image that was built is made for
 * the servers' processors already; one that runs there has shown that it fits.
 */
export function imagesToAsk(services: readonly DesiredService[], host: ObservedHost): string[] {
  const wanted = services.filter((service) => !service.built && service.hosts.includes(host.name))
    .map((service) => service.spec.image);
  const known = new Set(host.containers.map((container) => container.imageName));
  return [...new Set(wanted)].filter((image) => !known.has(image)).sort();
}

/** Asks each server about the images that are new to it; one round trip, none when none is. */
export async function askArchitectures(
  hosts: ReadonlyMap<string, RemoteHost>,
  wish: {
    readonly services: readonly DesiredService[];
    readonly observed: ReadonlyMap<string, ObservedHost>;
    readonly engine: EngineName;
  },
  signal: AbortSignal,
): Promise<ReadonlyMap<string, ImageArchitectures>> {
  const none: ImageArchitectures = new Map();
  const asked = [...wish.observed.values()].map(async (observed) => {
    const images = imagesToAsk(wish.services, observed);
    const host = hosts.get(observed.name);
    if (images.length === 0 || !host) return [observed.name, none] as const;
    const text = await mustRunScript(host, ASK_SCRIPT, {
      args: [wish.engine, ...images],
      what: "asking about images failed",
      timeoutMs: OBSERVE_TIMEOUT_MS + images.length * MANIFEST_SECONDS * 1_000,
      signal,
    });
    return [observed.name, parseAnswers(text)] as const;
  });
  return new Map(await Promise.all(asked));
}

/** Processors by image in the script's output; what does not parse is left out. */
export function parseAnswers(text: string): ImageArchitectures {
  const found = new Map<string, readonly string[]>();
  for (const line of text.split("\n")) {
    const [kind, value = "", image = ""] = line.split(" ");
    if (kind === "@has" && /^[a-z0-9_]+$/.test(value)) found.set(image, [value]);
    if (kind !== "@manifest") continue;
    const architectures = parseManifest(value);
    if (architectures.length > 0) found.set(image, architectures);
  }
  return found;
}

const Platform = v.looseObject({ architecture: v.string() });
/** An entry of an image index, or of `docker manifest inspect --verbose`. */
const Entry = v.union([
  v.pipe(v.looseObject({ platform: Platform }), v.transform((one) => one.platform)),
  v.pipe(
    v.looseObject({ Descriptor: v.looseObject({ platform: Platform }) }),
    v.transform((one) => one.Descriptor.platform),
  ),
]);
const Manifest = v.union([
  v.array(v.unknown()),
  v.pipe(v.looseObject({ manifests: v.array(v.unknown()) }), v.transform((one) => one.manifests)),
  v.pipe(v.looseObject({ Descriptor: v.unknown() }), v.transform((one) => [one])),
]);

/** Source: OCI image index 1.1; docker-manifest-inspect(1). */
function parseManifest(base64: string): string[] {
  try {
    const parsed = v.safeParse(Manifest, JSON.parse(atob(base64)));
    if (!parsed.success) return [];
    const names = parsed.output.flatMap((raw) => {
      const entry = v.safeParse(Entry, raw);
      // Signatures and provenance stand beside images, for a processor of no name.
      const isImage = entry.success && entry.output.architecture !== "unknown";
      return isImage ? [entry.output.architecture] : [];
    });
    return [...new Set(names)].sort();
  } catch {
    return [];
  }
}
