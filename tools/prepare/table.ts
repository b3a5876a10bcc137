/** All that can be prepared; things under way side by side start in this order. */
import { CORROSION } from "./corrosion.ts";
import { DOCKER_CURRENT, ROOT_DOCKER_CURRENT, RUNC_CURRENT } from "./engine_current.ts";
import { HUB, IMAGES, KAMAL_PROXY } from "./images.ts";
import { MACHINE, PACKAGES } from "./packages.ts";
import { ROOT, ROOT_DOCKER, ROOT_PODMAN } from "./root.ts";
import type { Thing } from "./thing.ts";

/** The table of things. */
export const THINGS: readonly Thing[] = [
  CORROSION,
  PACKAGES,
  MACHINE,
  KAMAL_PROXY,
  ROOT,
  HUB,
  IMAGES,
  ROOT_DOCKER,
  ROOT_PODMAN,
  DOCKER_CURRENT,
  RUNC_CURRENT,
  ROOT_DOCKER_CURRENT,
];
