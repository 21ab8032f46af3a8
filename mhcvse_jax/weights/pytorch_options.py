"""The options of CVSE's program and our keys for them."""

ALPHA = {"f30k": 0.85, "coco": 0.9}
"""The instance embedding's share of the fixed sum at evaluation. The checkpoint lacks it; the data set decides it."""

KEYS_OF_OPTIONS = {
    "Concept_label_ratio": "model.label_share",
    "dropout_rate": "model.dropout_rate",
    "margin": "loss.margin",
    "learning_rate": "optimizer.learning_rate",
    "batch_size": "batch_size",
    "lr_update": "optimizer.step_epochs",
    "grad_clip": "optimizer.clip_norm",
    "num_epochs": "num_epochs",
    "num_heads": "model.num_heads",
    "attention_input": "model.attention_input",
    "attention_residual": "model.attention_residual",
    "bytes_literal": "text.bytes_literal",
    "remove_stop_words": "text.remove_stop_words",
    "fixed_instance_weight": "model.fixed_instance_weight",
    "consensus_weight": "eval.consensus_weight",
}
"""Options that `opt` may hold, and our keys for them. Those from num_heads on come only from our own export."""
