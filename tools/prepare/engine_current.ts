/** A current Docker engine, as new users have it: its firewall rules differ from Debian's 20.10. */
import { runCommand } from "./command.ts";
import { runCommandInLayer } from "./layer.ts";
import type { BuildContext, Thing } from "./thing.ts";

const DOCKERD = "github.com/moby/moby/v2/cmd/dockerd@v2.0.0-beta.24";
const RUNC = "github.com/opencontainers/runc@v1.4.3";

async function buildEngine({ stage, say }: BuildContext): Promise<void> {
  const env = { GOBIN: `${stage}/bin`, GOFLAGS: "-buildvcs=false" };
  const timeoutMs = 40 * 60_000;
  say("compiling runc");
  await runCommand(["nice", "go", "install", "-ldflags=-s -w", RUNC], {
    env: { ...env, CGO_ENABLED: "1" },
    timeoutMs,
  });
  say("compiling dockerd, about 7 minutes");
  await runCommand(["nice", "go", "install", "-ldflags=-s -w", DOCKERD], {
    env: { ...env, CGO_ENABLED: "0" },
    timeoutMs,
  });
}

/** The current engine's programs, `bin/` in its slot. */
export const DOCKER_CURRENT: Thing = {
  name: "docker-current",
  title: "current Docker engine",
  recipe: JSON.stringify([1, DOCKERD, RUNC]),
  needs: ["machine"],
  build: buildEngine,
};

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
  needs: ["root", "root-docker", "docker-current", "packages"],
  build: async ({ stage, slot }) => {
    await runCommandInLayer("mkdir -p /usr/local/bin /etc/systemd/system/docker.service.d", {
      stage,
      lower: [`${slot("root-docker")}/diff`, `${slot("root")}/root`],
      repository: `${slot("packages")}/repo`,
    });
    const diff = `${stage}/diff`;
    for (const program of ["dockerd", "runc"]) {
      await Deno.mkdir(`${diff}/usr/local/bin`, { recursive: true });
      await Deno.copyFile(
        `${slot("docker-current")}/bin/${program}`,
        `${diff}/usr/local/bin/${program}`,
      );
      await Deno.chmod(`${diff}/usr/local/bin/${program}`, 0o755);
    }
    await Deno.writeTextFile(
      `${diff}/etc/systemd/system/docker.service.d/current.conf`,
      OVERRIDE,
    );
  },
};
