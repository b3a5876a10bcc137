import type { ServerConfig } from "@jiji/core";
import type { ObservedHost } from "../../types/deployment.ts";
import type { ObservedContainer } from "../engine/inspect.ts";
import type { ListedImage } from "./image_prune_service.ts";

/** What a server has of jiji, beside its containers. */
export interface TeardownFacts {
  /** Undefined when the server is no member of a cluster. */
  readonly host: ObservedHost | undefined;
  /** Whether anything of jiji is there, e.g. of a `server init` that was cut off. */
  readonly traces: boolean;
  readonly images: readonly ListedImage[];
  /** Names of volumes that the engine has. */
  readonly volumes: readonly string[];
  /** Projects with anything but their audit log in jiji's folder. */
  readonly projects: readonly string[];
}

/** What a teardown is about. */
export interface TeardownWish {
  readonly project: string;
  /** Whole names of the project's own images. */
  readonly repositories: readonly string[];
  /** Volumes to delete; empty unless told. */
  readonly volumes: readonly string[];
  /** Whether jiji itself goes too. */
  readonly all: boolean;
}

/** What goes from a server. */
export interface TeardownPlan {
  readonly server: string;
  readonly config: ServerConfig | undefined;
  readonly containers: readonly ObservedContainer[];
  /** `repository:tag`, or the id of an untagged one. */
  readonly images: readonly string[];
  readonly volumes: readonly string[];
  /** Whether releases, files and logins of the project are kept there. */
  readonly files: boolean;
  /** Whether jiji itself leaves the server. */
  readonly leaves: boolean;
  /** Other projects that need jiji there. */
  readonly others: readonly string[];
}

/** What a teardown takes from a server: by labels, by whole names, never by what looks alike. */
export function planTeardown(
  server: string,
  facts: TeardownFacts,
  wish: TeardownWish,
): TeardownPlan {
  const containers = facts.host?.containers ?? [];
  const own = containers.filter(({ labels }) => labels?.project === wish.project);
  const foreign = containers.flatMap(({ labels }) => labels?.project ?? [])
    .concat(facts.projects)
    .filter((project) => project !== wish.project);
  const images = facts.images.filter(({ repository }) => wish.repositories.includes(repository))
    .map(({ repository, tag, id }) => tag === undefined ? id : `${repository}:${tag}`);
  return {
    server,
    config: facts.host?.config,
    containers: [...own].sort((a, b) => a.name < b.name ? -1 : 1),
    images,
    volumes: wish.volumes.filter((volume) => facts.volumes.includes(volume)),
    files: facts.projects.includes(wish.project),
    leaves: wish.all && facts.traces,
    others: [...new Set(foreign)].sort(),
  };
}

/** The same for jiji alone: containers of the project keep it on the server, as others' do. */
export function networkTeardown(plan: TeardownPlan): TeardownPlan {
  const own = plan.containers.map(({ name }) => name);
  const others = [...new Set([...plan.others, ...own])].sort();
  return { ...plan, containers: [], images: [], volumes: [], files: false, others };
}

/** Whether there is nothing to take. */
export function isNothingToTearDown(plan: TeardownPlan): boolean {
  return plan.containers.length + plan.images.length + plan.volumes.length === 0 &&
    !plan.files && !plan.leaves;
}

/** A line for each kind of thing that goes. */
export function renderTeardown(plan: TeardownPlan): string[] {
  const names = plan.containers.map(({ name }) => name).join(", ");
  const count = plan.images.length;
  return [
    ...(names === "" ? [] : [`remove ${names}, with their routes`]),
    ...plan.volumes.map((volume) => `delete volume ${volume}, with its data`),
    ...(count === 0 ? [] : [`remove ${count} image${count === 1 ? "" : "s"}`]),
    ...(plan.files ? ["delete kept releases and files; the audit log stays"] : []),
    ...(plan.leaves
      ? ["leave the cluster: proxy, network, mesh, state, dns, daemon; the engine stays"]
      : []),
  ].map((line) => `  ${plan.server}  ${line}`);
}
