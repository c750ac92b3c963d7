"""What to do about a warning, in a sentence or two; what the warning says itself is not said again.

docs/guards.md has the same list, and tests hold the two equal and whole: whatever code a run or a worker warns with by name is
here. A job that is paused because a part of the service stays away warns with that part's code; the job's own error says what to do.
"""

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
    "evaluation_prompts_seen": "The gain may not hold on new prompts. Give evaluation.prompts that the data set does not have.",
    "few_evaluation_prompts": "Give more evaluation prompts, or raise evaluation.max_prompts where it leaves some out.",
    "few_prompts": "Give the evaluation more prompts.",
    "no_evaluation": "Give evaluation.prompts, or evaluate the checkpoint afterwards on prompts of its own.",
    "prompts_left_out": "Nothing, if the rows are not meant to count; else mend the file of prompts.",
    "prompts_cut": "Shorten these prompts, or put first what matters.",
    "images_below_resolution": "Leave small images out, or lower the transform's resolution.",
    "weights_variant": "Nothing, if this variant is meant; else put the weights without a variant into the folder.",
    "other_latents": "Judge by rewards and by people. For pairs that begin alike, compare models of one family.",
    "best_checkpoint_missing": "A later probe may find a new best one. Leave the work folder as it is while a run is stopped.",
    "compile_unavailable": "The run is only slower. Give the worker a C++ compiler (CPU) or Triton (GPU), or set training.compile to off.",
    "cuda_graphs_unavailable": "The run is only slower. Set training.cuda_graphs to off.",
    "tracker_failed": "The run is whole, and its curves are here. See to the tracker's address and key before the next one.",
    "tracker_behind": "The run is whole, and its curves are here. See whether the tracker answers slowly.",
    "tracker_hung": "The run is whole, and its curves are here. See whether the tracker can be reached.",
    "worker_lost": "The job is taken up again from its last checkpoint while it has attempts left. If it happens again, look at the worker's "
    "log and memory.",
    "checkpoint_passed_over": "The job goes on from the checkpoint before. If it happens again, look after the object store.",
}


def advice_for(code: str) -> str:
    """What to do; empty where the warning's own words say all."""
    return ADVICE.get(code, "")
