/** A current Docker engine, as new users have it: its firewall rules differ from Debian's 20.10. */
import { runCommand } from "./command.ts";
import { runCommandInLayer } from "./layer.ts";
import type { BuildContext, Thing } from "./thing.ts";

const DOCKERD = "github.com/moby/moby/v2/cmd/dockerd@v2.0.0-beta.24";
/** The engine works with the proxy of its own version alone. */
const DOCKER_PROXY = "github.com/moby/moby/v2/cmd/docker-proxy@v2.0.0-beta.24";
const RUNC = "github.com/opencontainers/runc@v1.4.3";

/** Longest compilation, in milliseconds. */
const COMPILE_TIMEOUT_MS = 40 * 60_000;

/** Go programs from the module proxy, `bin/` in its slot. */
function goProgram(
  thing: Pick<Thing, "name" | "title" | "after">,
  options: { readonly modules: readonly string[]; readonly cgo: boolean; readonly tags: string },
): Thing {
  return {
    ...thing,
    recipe: JSON.stringify([1, options]),
    needs: [],
    build: async ({ stage, say }: BuildContext) => {
      say("compiling");
      const flags = ["-trimpath", "-ldflags=-s -w", `-tags=${options.tags}`];
      await runCommand(["nice", "go", "install", ...flags, ...options.modules], {
        env: {
          GOBIN: `${stage}/bin`,
          GOFLAGS: "-buildvcs=false",
          CGO_ENABLED: options.cgo ? "1" : "0",
        },
        timeoutMs: COMPILE_TIMEOUT_MS,
      });
    },
  };
}

/** The current engine, `bin/dockerd` and `bin/docker-proxy` in its slot. */
export const DOCKER_CURRENT: Thing = goProgram(
  { name: "docker-current", title: "current Docker engine" },
  { modules: [DOCKERD, DOCKER_PROXY], cgo: false, tags: "" },
);

/** The runtime it wants, `bin/runc` in its slot. */
export const RUNC_CURRENT: Thing = goProgram(
  { name: "runc-current", title: "current runc", after: ["machine"] },
  { modules: [RUNC], cgo: true, tags: "seccomp" },
);

/**
 * The current engine in place of Debian's: containerd and the docker client stay Debian's, whose
 * API version the engine must be told to accept.
 */
const OVERRIDE = `[Service]
Environment=DOCKER_MIN_API_VERSION=1.24
ExecStart=
ExecStart=/usr/local/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock --feature containerd-snapshotter=false
`;

/** Servers that come with the current engine, `diff` in its slot, over `root-docker`. */
export const ROOT_DOCKER_CURRENT: Thing = {
  name: "root-docker-current",
  title: "server with a current Docker",
  recipe: JSON.stringify([1, OVERRIDE]),
  needs: ["root", "root-docker", "docker-current", "runc-current", "packages"],
  build: async ({ stage, slot }) => {
    await runCommandInLayer("mkdir -p /usr/local/bin /etc/systemd/system/docker.service.d", {
      stage,
      lower: [`${slot("root-docker")}/diff`, `${slot("root")}/root`],
      repository: `${slot("packages")}/repo`,
    });
    const diff = `${stage}/diff`;
    const programs = [
      { from: `${slot("docker-current")}/bin/dockerd`, to: `${diff}/usr/local/bin/dockerd` },
      {
        from: `${slot("docker-current")}/bin/docker-proxy`,
        to: `${diff}/usr/local/bin/docker-proxy`,
      },
      { from: `${slot("runc-current")}/bin/runc`, to: `${diff}/usr/local/bin/runc` },
    ];
    await Deno.mkdir(`${diff}/usr/local/bin`, { recursive: true });
    for (const { from, to } of programs) {
      await Deno.copyFile(from, to);
      await Deno.chmod(to, 0o755);
    }
    await Deno.writeTextFile(
      `${diff}/etc/systemd/system/docker.service.d/current.conf`,
      OVERRIDE,
    );
  },
};
