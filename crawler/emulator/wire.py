"""Reads requests and writes responses, as Vertex AI's protobuf messages.

Rule: what a client sends is taken as it is; what goes back has the shape of Vertex's own answers,
and a model version that ends with "-emulated".
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf import json_format

from crawler.emulator.answers import JSON_BY_DEFAULT, Answer, Question, tokens_in
from crawler.providers.vertex.messages import (
    Candidate,
    GenerateContentRequest,
    GenerateContentResponse,
    GenerationConfig,
    PredictRequest,
    PredictResponse,
)

MOST_TOKENS = 8_192
"""Of an answer, when the request sets no limit."""

_FINISHES = Candidate.FinishReason
_TRAFFIC = GenerateContentResponse.UsageMetadata
_TIERS = {"flex": "ON_DEMAND_FLEX", "priority": "ON_DEMAND_PRIORITY"}
_CHUNKS = 4


class Asked(NamedTuple):
    """A request: a question each for its instances (`Predict` may have several)."""

    model: str
    questions: Sequence[Question]
    tokens: int


def read_generate(body: bytes) -> Asked:
    """Read a request of GenerateContent and StreamGenerateContent. Raises DecodeError."""
    request = GenerateContentRequest.FromString(body)
    contents = request.contents
    prompt = "\n".join(part.text for part in contents[-1].parts) if contents else ""
    tokens = sum(tokens_in(part.text) for content in contents for part in content.parts)
    tokens += sum(tokens_in(part.text) for part in request.system_instruction.parts)
    config = request.generation_config
    question = Question(prompt, config.max_output_tokens or MOST_TOKENS, _schema(config))
    return Asked(base_name(request.model), (question,), tokens)


def read_predict(body: bytes) -> Asked:
    """Read a request of Predict, in the shape of text-bison's. Raises DecodeError."""
    request = PredictRequest.FromString(body)
    limit = request.parameters.struct_value.fields["maxOutputTokens"].number_value
    prompts = [_prompt(instance) for instance in request.instances]
    questions = [Question(prompt, int(limit) or MOST_TOKENS) for prompt in prompts]
    return Asked(base_name(request.endpoint), questions, sum(map(tokens_in, prompts)))


def generated(asked: Asked, answer: Answer, tier: str | None) -> bytes:
    """Return the response of GenerateContent."""
    response = _response(asked)
    _say(response, answer)
    _finish(response, asked, answer, tier)
    return bytes(response.SerializeToString())


def streamed(asked: Asked, answer: Answer, tier: str | None) -> list[bytes]:
    """Return the responses of StreamGenerateContent; what ends and counts is in the last."""
    responses = []
    for number, piece in enumerate(pieces_of(answer.text)):
        response = _response(asked)
        thought = answer.thought if number == 0 else ""
        _say(response, answer._replace(text=piece, thought=thought))
        responses.append(response)
    _finish(responses[-1], asked, answer, tier)
    return [response.SerializeToString() for response in responses]


def pieces_of(text: str | None) -> Sequence[str | None]:
    """Return a text in the pieces in which it is streamed, at least one."""
    size = max(1, -(-len(text or "") // _CHUNKS))
    return [(text or "")[at : at + size] for at in range(0, len(text or ""), size)] or [text]


def predicted(asked: Asked, answers: Sequence[Answer]) -> bytes:
    """Return the response of Predict, in the shape of text-bison's."""
    response = PredictResponse(model_display_name=asked.model, model_version_id="emulated")
    rows = [prediction(answer) for answer in answers if answer.finish or answer.blocked]
    chars_in = sum(len(question.prompt) for question in asked.questions)
    chars_out = sum(len(answer.text or "") for answer in answers)
    counts = {
        "inputTokenCount": {"totalTokens": asked.tokens, "totalBillableCharacters": chars_in},
        "outputTokenCount": {
            "totalTokens": sum(map(tokens_out, answers)),
            "totalBillableCharacters": chars_out,
        },
    }
    for row in rows:
        json_format.ParseDict(row, response.predictions.add())
    json_format.ParseDict({"tokenMetadata": counts}, response.metadata)
    return bytes(response.SerializeToString())


def tokens_out(answer: Answer) -> int:
    """Return the tokens of an answer, its thoughts included."""
    return tokens_in(answer.text or "") + tokens_in(answer.thought)


def _response(asked: Asked) -> Any:
    return GenerateContentResponse(model_version=f"{asked.model}-emulated")


def _say(response: Any, answer: Answer) -> None:
    """Put a candidate with an answer's text into a response."""
    if answer.blocked:
        response.prompt_feedback.block_reason = response.PromptFeedback.BlockedReason.SAFETY
        response.prompt_feedback.block_reason_message = "The emulator was told to block this."
    if answer.finish is None:
        return
    candidate = response.candidates.add()
    if answer.text is None:
        return
    candidate.content.role = "model"
    if answer.thought:
        candidate.content.parts.add(text=answer.thought, thought=True)
    if answer.text:
        candidate.content.parts.add(text=answer.text)


def _finish(response: Any, asked: Asked, answer: Answer, tier: str | None) -> None:
    """Say why an answer ends, and what it costs."""
    if answer.finish is not None:
        response.candidates[0].finish_reason = _FINISHES.Value(answer.finish)
    usage = response.usage_metadata
    usage.prompt_token_count = asked.tokens
    usage.candidates_token_count = tokens_in(answer.text or "")
    if answer.thought:
        usage.thoughts_token_count = tokens_in(answer.thought)
    usage.total_token_count = asked.tokens + tokens_out(answer)
    usage.traffic_type = getattr(_TRAFFIC.TrafficType, _TIERS.get(tier or "", "ON_DEMAND"))


def _prompt(instance: Any) -> str:
    fields = instance.struct_value.fields
    return str((fields["prompt"] if "prompt" in fields else fields["content"]).string_value)


def prediction(answer: Answer) -> Mapping[str, Any]:
    """Return a prediction in the shape of text-bison's."""
    refused = answer.text is None
    return {
        "content": answer.text or "",
        "citationMetadata": {"citations": []},
        "safetyAttributes": {"blocked": refused, "categories": [], "scores": []},
    }


def base_name(name: str) -> str:
    """Return the model's own name, of a resource name."""
    return name.rpartition("/")[2] or "unnamed"


def _schema(config: Any) -> Mapping[str, Any] | None:
    """Return the schema of the JSON that is asked for; None where it is not."""
    if config.HasField("response_json_schema"):
        return _as_json(config.response_json_schema.SerializeToString(), "response_json_schema")
    if config.HasField("response_schema"):
        return _as_json(config.response_schema.SerializeToString(), "response_schema")
    return JSON_BY_DEFAULT if config.response_mime_type == "application/json" else None


@lru_cache(64)
def _as_json(body: bytes, name: str) -> Mapping[str, Any]:
    """Return a schema as a mapping; the requests of a crawl have one and the same."""
    config = GenerationConfig()
    schema = getattr(config, name)
    schema.MergeFromString(body)
    found = json_format.MessageToDict(schema)
    return found if isinstance(found, dict) else JSON_BY_DEFAULT
