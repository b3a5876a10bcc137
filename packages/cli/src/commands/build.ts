import { systemProcess } from "@jiji/core";
import { ImageShipping } from "../lib/images/image_shipping.ts";
import { renderDuration } from "../lib/output/symbols.ts";
import {
  cacheFolder,
  chooseServices,
  type CommonOptions,
  loadConfiguration,
  type Ports,
} from "../utils/command_helpers.ts";
import { chooseVersion, readGitState } from "../utils/git.ts";

/** Options of `jiji build`. */
export interface BuildCommandOptions extends CommonOptions {
  readonly cache?: boolean | undefined;
  readonly push?: boolean | undefined;
  readonly version?: string | undefined;
}

/**
 * `jiji build`: builds the images of the chosen services and pushes them to the project's registry,
 * from where `jiji deploy --no-build --version …` takes them. No server is touched.
 *
 * @throws {RegistryError} when the registry refuses; {JijiError} when a build fails.
 */
export async function build(options: BuildCommandOptions, ports: Ports): Promise<void> {
  const { output, clock, signal } = ports;
  const startedMs = clock.monotonicMs();
  const configuration = await loadConfiguration(options, ports);
  const services = chooseServices(configuration, options)
    .filter((service) => service.build !== undefined);
  if (services.length === 0) {
    if (output.json) return output.result({ version: null, images: [] });
    return output.success("Nothing to do: none of these services has build:.");
  }
  const git = await readGitState(systemProcess, configuration.projectRoot);
  const version = chooseVersion(options.version, git, clock.nowMs());
  const push = options.push ?? true;
  output.note(
    [configuration.project, version, `${services.length} to build`]
      .join(` ${output.symbols.dot} `),
  );
  output.note("");
  await using shipping = new ImageShipping({
    configuration,
    process: systemProcess,
    version,
    build: true,
    push,
    cache: options.cache ?? true,
    signal,
    emit: (event) => output.emit(event),
    now: () => clock.monotonicMs(),
  }, cacheFolder());
  const images = await shipping.prepare(services);
  output.settle();
  const names = services.map(({ name }) => ({ service: name, image: images.get(name)!.name }));
  if (output.json) return output.result({ version, pushed: push, images: names });
  for (const { image } of names) output.line(image);
  const took = renderDuration(clock.monotonicMs() - startedMs);
  output.success(
    push
      ? `Built and pushed ${version} in ${took}. Next: jiji deploy --no-build --version ${version}`
      : `Built ${version} in ${took}; nothing was pushed.`,
  );
}
