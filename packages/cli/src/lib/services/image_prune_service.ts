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
      return [{ id, repository: raw.repository, tag }];
    } catch {
      return [];
    }
  });
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

/**
 * Images past what each service retains by itself, and those that lost their tag. One that any
 * container uses, running or not, stays, and counts as one of the retained.
 *
 * @param images newest first, as the engine lists them.
 */
export function planPrune(
  images: readonly ListedImage[],
  services: readonly PrunedService[],
  containers: readonly Pick<ObservedContainer, "imageId" | "imageName">[],
): PrunedImage[] {
  const ids = new Set(containers.map((container) => container.imageId));
  const names = new Set(containers.map((container) => container.imageName));
  return services.flatMap(({ service, repository, retain }) => {
    const own = images.filter((image) => image.repository === repository);
    const nameOf = (image: ListedImage) => `${repository}:${image.tag}`;
    const isUsed = (image: ListedImage) => ids.has(image.id) || names.has(nameOf(image));
    const tagged = own.filter((image) => image.tag !== undefined);
    const room = Math.max(retain - tagged.filter(isUsed).length, 0);
    const past = tagged.filter((image) => !isUsed(image)).slice(room);
    const untagged = own.filter((image) => image.tag === undefined && !ids.has(image.id));
    return [
      ...past.map((image) => ({ service, reference: nameOf(image) })),
      ...untagged.map((image) => ({ service, reference: image.id })),
    ];
  });
}
