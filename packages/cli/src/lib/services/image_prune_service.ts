import type { ObservedContainer } from "../engine/inspect.ts";

/** An image on a server. */
export interface ListedImage {
  /** Digest without `sha256:`. */
  readonly id: string;
  readonly repository: string;
  /** Undefined when another image has taken its tag. */
  readonly tag: string | undefined;
}

/** Images from lines of `argvListImages`, newest first; lines that do not parse are passed over. */
export function parseImages(text: string): ListedImage[] {
  return text.split("\n").flatMap((line) => {
    try {
      const raw = JSON.parse(line);
      const parts = [raw.id, raw.repository, raw.tag];
      if (!parts.every((part) => typeof part === "string")) return [];
      const id = raw.id.replace(/^sha256:/, "");
      const tag = raw.tag === "<none>" ? undefined : raw.tag;
      return [{ id, repository: repositoryOf(raw), tag }];
    } catch {
      return [];
    }
  });
}

/** Podman's history of names begins with the last one. */
function repositoryOf(raw: { readonly repository: string; readonly history?: unknown }): string {
  if (raw.repository !== "<none>" || typeof raw.history !== "string") return raw.repository;
  return (raw.history.split(/[,\s]/)[0] ?? "").replace(/:[^:/]*$/, "");
}

/** A service whose images may be pruned. */
export interface PrunedService {
  readonly service: string;
  /** Whole name of its images without the tag: others whose names only look alike are not ours. */
  readonly repository: string;
  readonly retain: number;
}

/** An image to remove. */
export interface PrunedImage {
  readonly service: string;
  /** What the engine is told to remove: `repository:tag`, or the id of an untagged one. */
  readonly reference: string;
}

/** What keeps images from being removed. */
export interface ImageUse {
  readonly containers: readonly Pick<ObservedContainer, "imageId" | "imageName">[];
  /** Images of releases that can be gone back to, the newest first. */
  readonly releaseImages: readonly string[];
}

/**
 * Names in the order in which they are worth keeping: those of releases first, the newest of these
 * in front; an image that no release was made of, since it never got healthy, comes last.
 */
export function byWorth(names: readonly string[], releaseImages: readonly string[]): string[] {
  const known = new Set(names);
  const released = releaseImages.filter((name) => known.has(name));
  return [...released, ...names.filter((name) => !released.includes(name))];
}

/**
 * Images past what each service retains by itself, and those that lost their tag. One that any
 * container uses, running or not, stays, and counts as one of the retained.
 *
 * @param images newest first, as the engine lists them.
 */
export function planPrune(
  images: readonly ListedImage[],
  services: readonly PrunedService[],
  use: ImageUse,
): PrunedImage[] {
  const ids = new Set(use.containers.map((container) => container.imageId));
  const names = new Set(use.containers.map((container) => container.imageName));
  return services.flatMap(({ service, repository, retain }) => {
    const own = images.filter((image) => image.repository === repository);
    const tagged = own.filter((image) => image.tag !== undefined);
    const idOf = new Map(tagged.map((image) => [`${repository}:${image.tag}`, image.id]));
    const isUsed = (name: string) => ids.has(idOf.get(name) ?? "") || names.has(name);
    const ordered = byWorth([...idOf.keys()], use.releaseImages);
    const room = Math.max(retain - ordered.filter(isUsed).length, 0);
    const past = ordered.filter((name) => !isUsed(name)).slice(room);
    const untagged = own.filter((image) => image.tag === undefined && !ids.has(image.id));
    return [
      ...past.map((reference) => ({ service, reference })),
      ...untagged.map((image) => ({ service, reference: image.id })),
    ];
  });
}
