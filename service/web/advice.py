"""What to do about a warning, in a sentence; what the warning says itself is not said again."""

ADVICE = {
    "margin_saturation": "The pairs are told apart almost surely, and little is left to learn. Lower the learning rate or beta, "
    "or take an earlier checkpoint.",
    "errors_rising": "Both images are modelled worse than before: the margin grows by forgetting. Lower beta or the learning rate, "
    "or let the reference move.",
    "diversity_falling": "Images of one prompt become alike. Stop earlier, raise beta, or add a reward for variety.",
    "reward_hacking": "The trained reward rises while what it stands for falls. Look at the pictures, and take the checkpoint before; "
    "a second reward in training helps.",
    "reference_drift": "The model is far from where it started. Raise beta, or set a budget: reference.guard.",
    "not_finite": "A number was NaN or infinite. Lower the learning rate, or train in fp32.",
    "reference_frozen": "The reference was held where it was, since moving it would have broken its budget.",
    "precision_too_coarse": "Rounding decides which pairs count. Set training.precision to what the warning names.",
    "probe_prompts_in_report": "The checkpoint is chosen on prompts of the report. Give more evaluation prompts.",
    "encoded_again": "A file of the cache was damaged and made anew; nothing is wrong with the run.",
}


def advice_for(code: str) -> str:
    """What to do; empty where the warning's own words say all."""
    return ADVICE.get(code, "")
