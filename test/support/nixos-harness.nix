# Evaluates one NixOS module without nixpkgs: fills in defaults, refuses options that the module does not have, and answers its `config`.
{ module, given }:
let
  lib = {
    mkOption = option: option // { isOption = true; };
    types = {
      bool = "bool";
      str = "str";
      package = "package";
      attrs = "attrs";
      nullOr = type: type;
      listOf = type: type;
      attrsOf = of: { inherit of; };
      submodule = body: body.options;
    };
    mapAttrs' = f: set: builtins.listToAttrs (map (name: f name set.${name}) (builtins.attrNames set));
    mapAttrsToList = f: set: map (name: f name set.${name}) (builtins.attrNames set);
    concatMap = builtins.concatMap;
    concatStringsSep = builtins.concatStringsSep;
    optionals = condition: list: if condition then list else [ ];
    optionalAttrs = condition: set: if condition then set else { };
    # As nixpkgs does, words that need no quotes have none.
    escapeShellArgs =
      words:
      builtins.concatStringsSep " " (
        map (
          word: if builtins.match "[[:alnum:],._+:@%/-]+" word != null then word else lib.escapeShellArg word
        ) words
      );
    escapeShellArg = text: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] text}'";
  };
  pkgs =
    builtins.listToAttrs (
      map
        (name: {
          inherit name;
          value = "/pkgs/${name}";
        })
        [
          "bash"
          "bubblewrap"
          "coreutils"
          "git"
          "nix"
          "util-linux"
          "systemd"
        ]
    )
    // {
      writeText = name: text: "<${name}>${text}";
      writeShellScript = name: text: "<${name}>${text}";
    };
  fill =
    path: options: set:
    let
      unknown = builtins.attrNames (removeAttrs set (builtins.attrNames options));
      valueOf =
        name: option: set.${name} or option.default or (throw "${path}.${name} is not set");
    in
    if unknown != [ ] then
      throw "there is no option ${path}.${builtins.head unknown}"
    else
      builtins.mapAttrs (
        name: option:
        if !(option ? isOption) then
          fill "${path}.${name}" option (set.${name} or { })
        else if option.type ? of then
          builtins.mapAttrs (key: fill "${path}.${name}.${key}" option.type.of) (valueOf name option)
        else
          valueOf name option
      ) options;
  evaluated = module {
    inherit lib pkgs;
    config = fill "config" evaluated.options given;
  };
in
evaluated.config
