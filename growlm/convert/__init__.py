"""Models of other libraries, in and out: folders of safetensors and a config.json, without transformers."""
