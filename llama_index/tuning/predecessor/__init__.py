"""llama-index-finetuning's names and addresses: moving over is one changed import."""
