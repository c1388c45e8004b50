# Options in fewer words, and those that several modules have alike.
{ lib }:
let
  inherit (lib) types;
  required = type: description: lib.mkOption { inherit type description; };
  option = type: default: description: lib.mkOption { inherit type default description; };
in
{
  inherit option required;
  # A set of things by name, each with these options.
  each =
    options: option (types.attrsOf (types.submodule { inherit options; })) { };
  package = required types.package "plumule, for instance `plumule.lib.package pkgs ./plumule.tgz`.";
  # Where pushes are told.
  broker = hook: {
    url = required types.str "Origin of the broker.";
    namespace = required types.str "Namespace at the broker.";
    hook = option types.str hook "Id of the hook at the broker.";
  };
}
