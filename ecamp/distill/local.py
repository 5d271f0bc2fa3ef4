"""The `transformers` distiller: a causal language model from a local folder, in this process.

For small jobs and for machines without a server; a server such as vLLM is many times faster. Nothing is
downloaded, no code from the folder is executed, and weights are read from safetensors only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ecamp.api.distiller import Distilled, Distiller, Report
from ecamp.api.plugin import PluginConfig
from ecamp.config import identity
from ecamp.distill.llm.answer import AnswerReader, UnreadableAnswer
from ecamp.distill.llm.prompt import Prompt
from ecamp.distill.llm.prompt_text import Passage, passages, prompt_text
from ecamp.errors import MissingError, UsageError
from ecamp.storage.files import content_hash
from ecamp.text.lexicon import Lexicon

_STEP = 64  # prompts are padded to a multiple of this
_WINDOW = 8  # batches of reports in memory at a time, to group prompts of equal length


class LocalDistillerConfig(PluginConfig):
    """Options: the model, its prompt and its resources."""

    path: str = Field(
        min_length=1, description="folder of the model, with config.json and safetensors"
    )
    prompt: str = Field(
        default="template-1",
        description="template-1 (published form), statements-1 (JSON with evidence), or a .yaml file",
    )
    lexicon: str = Field(default="chest", description="entities: chest, fundus, or a .yaml file")
    max_new_tokens: int = Field(
        default=512, ge=1, description="maximum number of tokens per answer"
    )
    batch_size: int = Field(default=8, ge=1, description="reports per batch")
    device: str = Field(default="auto", description="cpu, cuda, cuda:1; auto: cuda if available")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto: as the weights are stored"
    )


class LocalDistiller(Distiller[LocalDistillerConfig]):
    """Distiller that generates greedy answers with a local model; prompts and parsing as in `llm`.

    A report's answer depends on that report alone: all prompts of a batch are padded to one length and
    batches are always full (the last prompt is repeated), so that every report is computed in the same
    shapes.
    """

    summary = "a causal language model from a local folder, in this process, for small jobs"
    licence = "Apache-2.0 (the model has its own)"
    citation = "Wang et al., ECAMP, arXiv 2312.13316, section 3.2 (the template prompt)"

    def __init__(self, config: Any, variant: str | None = None) -> None:
        super().__init__(config, variant)
        self._prompt, self._lexicon = Prompt.load(config.prompt), Lexicon.load(config.lexicon)
        self._reader = AnswerReader(self._lexicon, self._prompt.answer)
        self._folder = _checked_folder(Path(config.path).expanduser())
        self._counts: Counter[str] = Counter()

    def identity_fields(self) -> dict[str, Any]:
        """Return everything that determines the answers: the folder's content, not its name."""
        config = self.config.model_dump(include={"max_new_tokens", "batch_size", "dtype"})
        files = sorted(p for p in self._folder.iterdir() if p.suffix in (".json", ".safetensors"))
        return {
            **config,
            "model": identity({p.name: content_hash(p) for p in files}),
            "prompt": self._prompt.digest(),
            "lexicon": self._lexicon.digest(),
        }

    def counts(self) -> Mapping[str, int]:
        """Return counts of all runs of this object: prompts, tokens, dropped statements by reason."""
        return dict(+self._counts)

    @cached_property
    def _model(self) -> LocalModel:
        return load_model(self._folder, self.config.device, self.config.dtype)

    def distill(self, reports: Iterable[Report]) -> Iterator[Distilled]:
        """Yield one result per report, see `Distiller`.

        Raises:
            UsageError: The model of the folder cannot be loaded.
        """
        for window in _windows(reports, _WINDOW * self.config.batch_size):
            yield from self._distill_window(window)

    def _distill_window(self, window: Sequence[Report]) -> list[Distilled]:
        parts = [passages(report, redacting=False) for report in window]
        with_text = [index for index, part in enumerate(parts) if part]
        answers = self._answers([prompt_text(parts[index]) for index in with_text])
        results = [Distilled(report.id) for report in window]
        for index, answer in zip(with_text, answers, strict=True):
            results[index] = self._read(window[index].id, answer, parts[index])
        return results

    def _read(self, id_: str, answer: Answer, parts: Sequence[Passage]) -> Distilled:
        if answer.error:
            self._counts["error: prompt too long"] += 1
            return Distilled(id_, error=answer.error)
        try:
            statements, dropped = self._reader.read(answer.text, parts, cut=answer.cut)
        except UnreadableAnswer as unreadable:
            self._counts["error: unreadable answer"] += 1
            return Distilled(id_, error=f"answer of {self._folder.name}: {unreadable}")
        for reason, count in dropped.items():
            self._counts[f"dropped: {reason}"] += count
        return Distilled(id_, statements, dropped)

    def _answers(self, texts: Sequence[str]) -> list[Answer]:
        """Generate one answer per text; equal texts are generated once."""
        model, size = self._model, self.config.batch_size
        prompts = {text: model.encode(self._prompt.messages(text, self._lexicon)) for text in texts}
        max_tokens = model.context - self.config.max_new_tokens
        answers = {
            text: Answer(error=f"prompt too long: {len(ids)} tokens, the model takes {max_tokens}")
            for text, ids in prompts.items()
            if len(ids) > max_tokens
        }
        fitting = sorted(
            (text for text in prompts if text not in answers),
            key=lambda text: _padded(len(prompts[text])),
        )
        for length, group in groupby(fitting, key=lambda text: _padded(len(prompts[text]))):
            while batch := list(islice(group, size)):
                full = [*batch, *[batch[-1]] * (size - len(batch))]
                new = model.generate(
                    [prompts[t] for t in full],
                    min(length, max_tokens),
                    self.config.max_new_tokens,
                )
                answers.update(zip(batch, new, strict=False))
                self._counts["prompts"] += len(batch)
                self._counts["prompt tokens"] += sum(len(prompts[t]) for t in batch)
                self._counts["answer tokens"] += sum(a.tokens for a in new[: len(batch)])
        return [answers[text] for text in texts]


def _windows(reports: Iterable[Report], size: int) -> Iterator[list[Report]]:
    """Yield reports in lists; if the source fails, the reports before come before its error."""
    window: list[Report] = []
    pending_error = None
    try:
        for report in reports:
            window.append(report)
            if len(window) == size:
                yield window
                window = []
    except Exception as error:
        pending_error = error
    if window:
        yield window
    if pending_error is not None:
        raise pending_error


def _padded(length: int) -> int:
    return -(-length // _STEP) * _STEP


@dataclass(frozen=True)
class Answer:
    """An answer of the model.

    Attributes:
        text: Its text.
        tokens: Number of its tokens.
        cut: Whether it reached the maximum length before its end.
        error: Reason why there is no answer; empty when there is one.
    """

    text: str = ""
    tokens: int = 0
    cut: bool = False
    error: str = ""


@dataclass(frozen=True)
class LocalModel:
    """A loaded model and its tokenizer.

    Attributes:
        tokenizer: Tokenizer of `transformers`.
        model: Causal language model of `transformers`.
        context: Maximum number of tokens of prompt and answer together.
    """

    tokenizer: Any
    model: Any
    context: int

    def encode(self, messages: list[dict[str, str]]) -> list[int]:
        """Encode a chat with the model's own template, or by joining its texts without one."""
        from jinja2 import TemplateError

        joined = "\n\n".join(message["content"] for message in messages)
        if not self.tokenizer.chat_template:
            return list(self.tokenizer(joined + "\n\nAnswer:\n")["input_ids"])
        try:
            text = self._chat(messages)
        except TemplateError:  # some templates refuse a system message
            text = self._chat([{"role": "user", "content": joined}])
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _chat(self, messages: list[dict[str, str]]) -> str:
        return str(
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )

    def generate(
        self, prompts: Sequence[list[int]], length: int, max_new_tokens: int
    ) -> list[Answer]:
        """Generate greedy answers.

        Args:
            prompts: Token ids of each prompt.
            length: Number of tokens to which prompts are padded on the left.
            max_new_tokens: Maximum number of tokens per answer.
        """
        import torch

        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (length - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
        device = self.model.device
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=max_new_tokens,
            )
        return [self._answer(row, max_new_tokens) for row in out[:, length:].tolist()]

    def _answer(self, row: list[int], max_new_tokens: int) -> Answer:
        ends = self.model.generation_config.eos_token_id
        ends = set(ends) if isinstance(ends, list) else {ends}
        end = next((index for index, token in enumerate(row) if token in ends), None)
        tokens = row if end is None else row[:end]
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return Answer(text, len(tokens), cut=end is None and len(row) >= max_new_tokens)


def _checked_folder(folder: Path) -> Path:
    """Check that a folder contains a model.

    Raises:
        MissingError: There is no such folder, or it lacks config or weights.
    """
    if not (folder / "config.json").is_file():
        raise MissingError(
            f"{folder}: not a folder with a config.json.",
            "Name the folder of a causal language model, as save_pretrained writes it; nothing is downloaded.",
        )
    if not any(folder.glob("*.safetensors")):
        raise MissingError(
            f"{folder}: no .safetensors file; other weight files can contain code and are not read.",
            "Convert them: model.save_pretrained(FOLDER, safe_serialization=True).",
        )
    return folder


def load_model(folder: Path, device: str, dtype: str) -> LocalModel:
    """Load model and tokenizer, offline and without executing code from the folder.

    Raises:
        UsageError: They cannot be loaded; contains the reason.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    target = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            dtype=dtype,
        )  # fmt: skip
        model = model.to(target).eval()
    except Exception as error:  # the libraries raise all kinds
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"{folder}: the model cannot be loaded on {target}: {reason}",
            "It must be a causal language model supported by transformers, complete with its tokenizer.",
        ) from error
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    if tokenizer.pad_token_id is None:  # any token will do: padding is masked
        tokenizer.pad_token_id = (ends[0] if isinstance(ends, list) else ends) or 0
    # The folder's own settings may sample or penalise repetition; answers must be reproducible.
    model.generation_config = GenerationConfig(
        do_sample=False, num_beams=1, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    context = int(getattr(model.config, "max_position_embeddings", None) or 2**31)
    return LocalModel(tokenizer, model, context)
