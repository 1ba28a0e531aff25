"""Fine-tuning in one command: any data, any schema, from any checkpoint, with baselines beside the result."""
