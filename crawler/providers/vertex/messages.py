"""The methods and messages of Vertex AI's prediction service, as its library defines them.

Rule: the raw protobuf classes beneath the library's own types (`Type.pb()`), because its wrappers
cost as much again as a whole call. Importing this takes a tenth of a second: only who makes a call,
or answers one, may do it.
"""

from typing import Any

from crawler.providers.vertex.light_import import import_from

# Any: these classes are made at run time.
content: Any
prediction_service: Any
content, prediction_service = import_from(
    "google.cloud.aiplatform_v1.types", "content", "prediction_service"
)

SERVICE = "google.cloud.aiplatform.v1.PredictionService"
GENERATE = f"/{SERVICE}/GenerateContent"
STREAM = f"/{SERVICE}/StreamGenerateContent"
PREDICT = f"/{SERVICE}/Predict"
REQUEST_TYPE_HEADER = "x-vertex-ai-llm-shared-request-type"
CAPACITY_HEADER = "x-vertex-ai-llm-request-type"

GenerateContentRequest: Any = prediction_service.GenerateContentRequest.pb()
GenerateContentResponse: Any = prediction_service.GenerateContentResponse.pb()
PredictRequest: Any = prediction_service.PredictRequest.pb()
PredictResponse: Any = prediction_service.PredictResponse.pb()
Candidate: Any = content.Candidate.pb()
GenerationConfig: Any = content.GenerationConfig.pb()
