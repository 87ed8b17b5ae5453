"""What is measured each time `eval.every_tokens` have passed, and put on record."""

from __future__ import annotations

from functools import partial
from typing import Any

from growlm.train.forecast import forecast_stage
from growlm.train.session import Session
from growlm.train.state import TrainState
from growlm.train.validate import generate, held_out, held_out_loss, held_out_signals


def evaluate(session: Session, state: TrainState) -> None:
    """Validation loss per source, a continuation of every prompt and a forecast, into the record."""
    p, settings, engine = state.progress, session.recipe.eval, state.engine
    stage = session.recipe.stages[p.stage]
    at: dict[str, Any] = {"step": p.step, "stage": p.stage, "tokens": p.tokens}
    engine.set_mask(state.ramp, state.mask)
    sources = sorted(source for source, weight in session.recipe.mixture_of(p.stage).items() if weight)
    learnt = session.mixture.learnt
    with session.world.together():
        read = partial(held_out, session.dataset, seq_len=stage.seq_len, tokens=settings.tokens)
        held = {s: read(s, device=engine.device, everything=not learnt[s].marked) for s in sources}
    signals = session.dataset.manifest.tokenizer.signal_ids
    judged = {
        source: held_out_signals(engine, one, signals)
        for source, one in held.items()
        if signals and session.dataset.kind(source) == "signals"
    }
    accuracy = {source: one.accuracy for source, one in judged.items()}
    of_two = session.recipe.objectives.head == "classification"
    losses = {}
    for source, one in held.items():
        if source in judged and learnt[source].objective == "teacher":
            losses[source] = judged[source].loss_of_two if of_two else judged[source].loss
        else:
            losses[source] = held_out_loss(engine, one)
    epochs = session.mixture.epochs(p.stage, p.stage_step)
    session.recorder.append("valid", **at, losses=losses, accuracy=accuracy, epochs=epochs)
    shown = "  ".join(f"{source} {loss:.4f}" for source, loss in losses.items())
    shown += "".join(f"  {source} {share:.1%} right" for source, share in accuracy.items())
    session.console.say(f"validation at step {p.step}: {shown}")
    for prompt in settings.prompts if settings.sample_tokens else []:
        text = generate(
            engine,
            session.tokenizer,
            prompt,
            tokens=settings.sample_tokens,
            context=stage.seq_len,
            seed=session.recipe.seed,
        )
        session.recorder.append("sample", **at, prompt=prompt, text=text)
    forecast_stage(session, state)
