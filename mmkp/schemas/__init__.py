"""The built-in keypoint schemas, one YAML file each."""
