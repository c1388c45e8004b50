# The bridge: a post-receive hook in each bare repository, which tells the broker of every push.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.plumule-bridge;
  hook =
    repository:
    pkgs.writeShellScript "plumule-post-receive" ''
      export PLUMULE_URL=${lib.escapeShellArg repository.url}
      export PLUMULE_NAMESPACE=${lib.escapeShellArg repository.namespace}
      export PLUMULE_KEY=${lib.escapeShellArg repository.keyFile}
      export PLUMULE_HOOK=${lib.escapeShellArg repository.hook}
      exec ${cfg.package}/bin/plumule-post-receive
    '';
in
{
  options.services.plumule-bridge = {
    package = lib.mkOption {
      type = lib.types.package;
      description = "plumule, for instance `plumule.lib.package pkgs ./plumule.tgz`.";
    };
    repositories = lib.mkOption {
      default = { };
      description = "Bare repositories of this machine by path.";
      type = lib.types.attrsOf (
        lib.types.submodule {
          options = {
            url = lib.mkOption {
              type = lib.types.str;
              description = "Origin of the broker.";
            };
            namespace = lib.mkOption {
              type = lib.types.str;
              description = "Namespace at the broker.";
            };
            keyFile = lib.mkOption {
              type = lib.types.str;
              description = "File of the Ed25519 key that signs pushes, readable by whoever receives them alone.";
            };
            hook = lib.mkOption {
              type = lib.types.str;
              default = "git";
              description = "Id of the hook at the broker.";
            };
          };
        }
      );
    };
  };

  config.systemd.tmpfiles.rules = lib.mapAttrsToList (
    path: repository: "L+ ${path}/hooks/post-receive - - - - ${hook repository}"
  ) cfg.repositories;
}
