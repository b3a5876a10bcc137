import { ENGINE_TIMEOUT_MS } from "../../constants.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { mustRun } from "../../utils/remote.ts";
import { argvListImages, argvRemoveImage, type EngineName } from "../engine/engine_commands.ts";

/** An image on a server. */
export interface ListedImage {
  readonly id: string;
  readonly name: string;
  readonly created: string;
}

/** Images from lines of {@link argvListImages}; lines that do not parse are passed over. */
export function parseImages(text: string): ListedImage[] {
  return text.split("\n").flatMap((line) => {
    try {
      const raw = JSON.parse(line);
      const parts = [raw.id, raw.repository, raw.tag, raw.created];
      if (!parts.every((part) => typeof part === "string") || raw.tag === "<none>") return [];
      return [{ id: raw.id, name: `${raw.repository}:${raw.tag}`, created: raw.created }];
    } catch {
      return [];
    }
  });
}

/** Names to remove: all but the newest `retain`, never the one in use. The engine lists newest first. */
export function planPrune(
  images: readonly ListedImage[],
  options: { readonly keep: string; readonly retain: number },
): string[] {
  const others = images.filter((image) => image.name !== options.keep);
  return others.slice(Math.max(options.retain - 1, 0)).map((image) => image.name);
}

/** Removes images of one service that are past what it retains. */
export class PruneService {
  readonly #host: RemoteHost;
  readonly #engine: EngineName;

  /** Nothing runs before {@link PruneService.prune}. */
  constructor(host: RemoteHost, engine: EngineName) {
    this.#host = host;
    this.#engine = engine;
  }

  /** An image that a container still uses is refused by the engine, and stays. */
  async prune(step: {
    readonly repository: string;
    readonly keep: string;
    readonly retain: number;
  }): Promise<void> {
    const text = await mustRun(this.#host, argvListImages(this.#engine, step.repository), {
      what: "listing images failed",
      timeoutMs: ENGINE_TIMEOUT_MS,
    });
    for (const name of planPrune(parseImages(text), step)) {
      await this.#host.run(argvRemoveImage(this.#engine, name), { timeoutMs: ENGINE_TIMEOUT_MS });
    }
  }
}
