/** The file that says which containers are healthy now, for deploys that wait for one. */
import { renderHealthyLine, SERVER_PATHS } from "@jiji/core/cluster";
import { messageOf } from "@jiji/core/runtime";
import type { DaemonContext } from "./daemon_context.ts";

/** Keeps {@link SERVER_PATHS.healthy} equal to what the duties found. */
export class HealthyFile {
  readonly #context: Pick<DaemonContext, "facts" | "files" | "logger">;
  #written: string | undefined;
  #writing = false;

  constructor(context: Pick<DaemonContext, "facts" | "files" | "logger">) {
    this.#context = context;
  }

  /** Writes it when it changed; one write at a time, so that the last word stays. */
  async tell(): Promise<void> {
    const { files, logger } = this.#context;
    if (this.#writing) return;
    this.#writing = true;
    try {
      while (this.#written !== this.#text()) {
        const text = this.#text();
        await files.replace(SERVER_PATHS.healthy, text, { mode: 0o644 });
        this.#written = text;
      }
    } catch (error) {
      logger.warn("healthy containers not told", { error: messageOf(error) });
    } finally {
      this.#writing = false;
    }
  }

  #text(): string {
    const { containers, health } = this.#context.facts;
    const lines = (containers ?? []).flatMap(({ id, name, labels, isEnding }) => {
      const isHealthy = health.get(id)?.status === "healthy" && !isEnding;
      return labels && isHealthy ? [`${renderHealthyLine({ ...labels, name })}\n`] : [];
    });
    return lines.sort().join("");
  }
}
