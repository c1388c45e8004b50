/** What the flake of a commit says: how long its slow derivation takes, and a word that makes it a new derivation. */
export type Season = { system: string; word: string; growSeconds: number };

/** The derivation that takes its time; the others build at once. */
export const SLOW_DERIVATION = "stem";

/**
 * A flake without inputs, so that it builds without network: six derivations that need one another, with phases and colours. It speaks to Nix
 * in the `@nix` lines of its structured log. `seed` and `root` are the same in every commit, so that a second build finds them.
 */
export function flakeText({ system, word, growSeconds }: Season): string {
  return `{
  description = "A plant without inputs";
  outputs = { self }:
    let
      grow = name: needs: script: derivation {
        inherit name;
        system = "${system}";
        builder = "/bin/sh";
        args = [ "-eu" "-c" ''
          PATH=/usr/bin:/bin:/run/current-system/sw/bin
          phase() { echo "@nix { \\"action\\": \\"setPhase\\", \\"phase\\": \\"$1\\" }"; }
          phase unpackPhase
          echo "\${name}: stands on \${toString (builtins.length needs)} others"
          phase buildPhase
          \${script}
          phase installPhase
          echo "\${name} \${toString needs}" > $out
        '' ];
      };
      green = text: "printf '\\\\033[32m%s\\\\033[0m\\\\n' '\${text}'";
      seed = grow "seed" [ ] (green "the seed opens");
      root = grow "root" [ seed ] (green "the root goes down");
      stem = grow "${SLOW_DERIVATION}" [ root ] "echo 'the stem goes up, ${word}'; sleep ${growSeconds}";
      leafLeft = grow "leaf-left" [ stem ] "for vein in 1 2 3; do echo \\"vein $vein\\"; done";
      leafRight = grow "leaf-right" [ stem ] "for vein in 1 2 3; do echo \\"vein $vein\\"; done";
      plumule = grow "plumule" [ leafLeft leafRight ] (green "the plumule unfolds");
    in { packages.${system} = { inherit root; default = plumule; }; };
}
`;
}
