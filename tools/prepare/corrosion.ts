/** Corrosion, built from the crate registry. */
import { runCommand } from "./command.ts";
import type { BuildContext, Thing } from "./thing.ts";

/** The crate and version. Its program is called `corrosion`. */
const KLUKAI_VERSION = "0.1.4";

/**
 * Settings of a build in minutes: unoptimised, so good for everything but timing Corrosion itself.
 * Without the cfg flag the crate does not compile.
 */
const BUILD_ENV: Readonly<Record<string, string>> = {
  RUSTFLAGS: "--cfg tokio_unstable",
  CARGO_PROFILE_RELEASE_OPT_LEVEL: "0",
  CARGO_PROFILE_RELEASE_CODEGEN_UNITS: "64",
  CARGO_PROFILE_RELEASE_DEBUG: "0",
  CARGO_TERM_COLOR: "never",
};

async function buildCorrosion({ stage, say }: BuildContext): Promise<void> {
  let compiled = 0;
  const onLine = (line: string) => {
    const crate = /^\s*Compiling (\S+)/.exec(line)?.[1];
    if (crate) say(`crate ${++compiled}, ${crate}`);
  };
  const argv = ["cargo", "install", "klukai", "--version", KLUKAI_VERSION, "--locked"];
  await runCommand([...argv, "--root", `${stage}/install`], {
    env: { ...BUILD_ENV, CARGO_TARGET_DIR: `${stage}/target` },
    timeoutMs: 40 * 60_000,
    onLine,
  });
  await Deno.mkdir(`${stage}/bin`);
  const built = `${stage}/install/bin/corrosion`;
  await runCommand(["strip", "-o", `${stage}/bin/corrosion`, built]);
  await Deno.remove(`${stage}/install`, { recursive: true });
  await Deno.remove(`${stage}/target`, { recursive: true });
}

/** The Corrosion program, `bin/corrosion` in its slot. */
export const CORROSION: Thing = {
  name: "corrosion",
  title: `Corrosion (klukai ${KLUKAI_VERSION}, unoptimised)`,
  recipe: JSON.stringify([2, KLUKAI_VERSION, BUILD_ENV]),
  needs: [],
  build: buildCorrosion,
};
