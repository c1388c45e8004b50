{
  description = "plumule: jobs for Radicle and Nix";

  # No inputs: the modules take what they need from the system that imports them.
  outputs =
    { self }:
    {
      nixosModules = {
        runner = import ./nix/runner.nix;
        bridge = import ./nix/bridge.nix;
        default = {
          imports = [
            self.nixosModules.runner
            self.nixosModules.bridge
          ];
        };
      };
      # The package from the tarball that `node scripts/pack.mjs` makes.
      lib.package = import ./nix/package.nix;
    };
}
