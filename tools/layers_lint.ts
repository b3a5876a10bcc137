/**
 * A `deno lint` plugin: who may import whom (docs/architecture.md, "Packages"), and that every
 * export says what it is. Every rule carries its reason, which is the message.
 */

interface Fence {
  /** Files the rule holds for. */
  readonly files: RegExp;
  /** Import specifiers it refuses. */
  readonly refused: RegExp;
  /** Files that are the exception. */
  readonly except?: RegExp;
  readonly reason: string;
}

const FENCES: readonly Fence[] = [
  {
    files: /\/packages\/core\/src\//,
    refused: /^@jiji\//,
    reason: "core imports none of our packages: it is what they stand on",
  },
  {
    files: /\/packages\/(cli|dns|daemon)\/(src|tests)\//,
    refused: /^@jiji\/(cli|dns|daemon)|packages\/(cli|dns|daemon)\//,
    reason: "programs never import each other; what two need belongs in core",
  },
  {
    files: /\/packages\/[a-z]+\/src\//,
    refused: /^@jiji\/core\/testing|\/testing\//,
    reason: "doubles are for tests",
  },
  {
    files: /\/packages\/[a-z]+\/src\//,
    refused: /^ssh2$/,
    except: /\/utils\/ssh(\/|_pool)/,
    reason: "ssh2 stays behind RemoteHost in utils/ssh/, so that another transport can join it",
  },
  {
    files: /\/packages\/[a-z]+\/src\//,
    refused: /^(@commander-js\/extra-typings|commander)$/,
    except: /\/src\/(main\.ts$|command_tree\/)/,
    reason: "the command line is parsed in main.ts and command_tree/ alone",
  },
  {
    files: /\/packages\/[a-z]+\/src\//,
    refused: /^yaml$/,
    except: /\/lib\/configuration\//,
    reason: "YAML is read in lib/configuration alone, where positions are kept",
  },
  {
    files: /\/packages\/cli\/src\/lib\//,
    refused: /\/commands\/|\/main\.ts$/,
    reason: "lib knows no commands: commands call it",
  },
  {
    files: /\/packages\/cli\/src\/types\//,
    refused: /\/(commands|services|utils)\//,
    reason: "types lie at the bottom",
  },
];

function broken(file: string, specifier: string): Fence | undefined {
  return FENCES.find((fence) =>
    fence.files.test(file) && !fence.except?.test(file) && fence.refused.test(specifier)
  );
}

function isOverload(node: Deno.lint.ExportNamedDeclaration): boolean {
  const name = declaredName(node);
  const siblings = node.parent.type === "Program" ? node.parent.body : [];
  return siblings.some((other) =>
    other !== node && other.type === "ExportNamedDeclaration" &&
    other.range[0] < node.range[0] && declaredName(other) === name
  );
}

function declaredName(node: Deno.lint.ExportNamedDeclaration): string | undefined {
  const { declaration } = node;
  return declaration?.type === "FunctionDeclaration" ? declaration.id?.name : undefined;
}

const plugin: Deno.lint.Plugin = {
  name: "jiji",
  rules: {
    layers: {
      create(context) {
        const check = (node: { source: Deno.lint.StringLiteral | null }) => {
          if (!node.source) return;
          const fence = broken(context.filename, node.source.value);
          if (fence) context.report({ node: node.source, message: fence.reason });
        };
        return {
          ImportDeclaration: check,
          ExportNamedDeclaration: check,
          ExportAllDeclaration: check,
        };
      },
    },
    /**
     * Stands in for `deno doc --lint`, which also wants a comment on every field of every type: a
     * field whose name and type say all of it needs none.
     */
    "documented-exports": {
      create(context) {
        if (!/\/src\/|\/testing\//.test(context.filename)) return {};
        return {
          ExportNamedDeclaration(node) {
            if (!node.declaration) return;
            const comments = context.sourceCode.getCommentsBefore(node);
            const last = comments.at(-1);
            const between = last && context.sourceCode.text.slice(last.range[1], node.range[0]);
            const adjoins = last?.type === "Block" && last.value.startsWith("*");
            if (adjoins && between?.trim() === "") return;
            // Later signatures of an overloaded function share the first one's text.
            if (node.declaration.type === "FunctionDeclaration" && isOverload(node)) return;
            context.report({ node, message: "say in a JSDoc comment what this export is" });
          },
        };
      },
    },
  },
};

export default plugin;
