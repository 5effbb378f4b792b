"""What Google's own libraries call beside the methods of a crawl: tensors, tokens, model cards.

Rule: as in `crawler.emulator.wire`: what a client sends is taken as it is, and what goes back has
the shape of Vertex's own answers.
"""

from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format

from crawler.emulator.answers import Answer, Question, tokens_in
from crawler.emulator.wire import MOST_TOKENS, Asked, base_name, pieces_of, prediction
from crawler.providers.vertex.light_import import import_from

_TYPES = "google.cloud.aiplatform_v1.types"
MODEL_GARDEN = "google.cloud.aiplatform.v1.ModelGardenService"
"""The library asks it what a model is before it calls it."""
UTILITY = "google.cloud.aiplatform.v1.LlmUtilityService"
_SCHEMA = "gs://google-cloud-aiplatform/schema/predict/instance/text_generation_1.0.0.yaml"

# Any: these classes are made at run time.
_service: Any
_model_garden: Any
_publisher_model: Any
_service, _model_garden, _publisher_model = import_from(
    _TYPES, "prediction_service", "model_garden_service", "publisher_model"
)
_StreamingRequest = _service.StreamingPredictRequest.pb()
_StreamingResponse = _service.StreamingPredictResponse.pb()
_CountTokensRequest = _service.CountTokensRequest.pb()
_CountTokensResponse = _service.CountTokensResponse.pb()
_GetPublisherModelRequest = _model_garden.GetPublisherModelRequest.pb()
_PublisherModel = _publisher_model.PublisherModel.pb()


def read_streaming_predict(body: bytes) -> Asked:
    """Read a request of ServerStreamingPredict, in the shape of text-bison's."""
    request = _StreamingRequest.FromString(body)
    fields = request.parameters.struct_val
    limits = fields["maxOutputTokens"].int_val if "maxOutputTokens" in fields else ()
    most_tokens = limits[0] if limits else MOST_TOKENS
    prompts = [_prompt(tensor) for tensor in request.inputs]
    questions = [Question(prompt, most_tokens) for prompt in prompts]
    return Asked(base_name(request.endpoint), questions, sum(map(tokens_in, prompts)))


def streamed_prediction(asked: Asked, answers: Sequence[Answer]) -> list[bytes]:
    """Return the responses of ServerStreamingPredict: the first answer in pieces."""
    del asked
    responses = []
    for piece in pieces_of(answers[0].text):
        response = _StreamingResponse()
        row = prediction(answers[0]._replace(text=piece))
        _put(response.outputs.add(), row)
        responses.append(response.SerializeToString())
    return responses


def counted(body: bytes) -> bytes:
    """Return the response of CountTokens."""
    return bytes(_counted(_CountTokensRequest.FromString(body)).SerializeToString())


def counted_as_json(body: bytes) -> bytes:
    """Return the response of countTokens. Raises json_format.ParseError."""
    request = json_format.Parse(body, _CountTokensRequest(), ignore_unknown_fields=True)
    return str(json_format.MessageToJson(_counted(request), indent=None)).encode()


def _counted(request: Any) -> Any:
    contents = [*request.contents, request.system_instruction]
    texts = [part.text for content in contents for part in content.parts]
    for instance in request.instances:
        texts += [value.string_value for value in instance.struct_value.fields.values()]
    return _CountTokensResponse(
        total_tokens=sum(map(tokens_in, texts)), total_billable_characters=sum(map(len, texts))
    )


def model_card(body: bytes) -> bytes:
    """Return the response of GetPublisherModel: every model writes text."""
    name = _GetPublisherModelRequest.FromString(body).name
    card = _PublisherModel(name=name, version_id="emulated")
    card.publisher_model_template = f"projects/{{user-project}}/locations/{{location}}/{name}"
    card.predict_schemata.instance_schema_uri = _SCHEMA
    return bytes(card.SerializeToString())


def _prompt(tensor: Any) -> str:
    fields = tensor.struct_val
    for name in ("prompt", "content"):
        if name in fields and fields[name].string_val:
            return str(fields[name].string_val[0])
    return ""


def _put(tensor: Any, value: Any) -> None:
    """Write a value as JSON has it into a tensor."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _put(tensor.struct_val[name], inner)
    elif isinstance(value, list):
        for inner in value:
            _put(tensor.list_val.add(), inner)
    elif isinstance(value, bool):
        tensor.bool_val.append(value)
    else:
        tensor.string_val.append(value)
