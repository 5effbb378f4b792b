"""The words by which refusals are told apart.

Rule: data. Phrases are written as `said.plain` writes a text: lower case, no punctuation,
"per day" for `PerDay`. One begins where a word begins and may end within one, unless a ``$`` ends
it; the parts around a ``…`` stand near each other. ``|`` stands between phrases.
"""

from typing import Final


def _phrases(written: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in written.split("|"))


MINUTE: Final = _phrases(
    """
    per min | per 1 min | per 1 hour | rpm$ | tpm$ | / min | / second | per second | hourly |
    per hour
    """
)
"""Windows that pass soon."""

RATE: Final = _phrases(
    """
    rate limit exceeded | rate limit reached | rate limit error | rate limited | too many requests |
    request limit reached | tpm$
    """
)
"""These tell of a quota also where the status code doesn't."""

DAY: Final = _phrases(
    """
    per day | by day | per 86400s | usage cap | rpd$ | tpd$ | daily | / day | per month | / month |
    per week | weekly | call volume quota | free usage quota | limit exceeded exception |
    account limited | monthly … quota | per 1 day | per 1 month
    """
)
"""Windows that a run does not wait for."""

TODAY: Final = ("for today", "this month", "this week")
"""Likewise, where nothing that is said passes sooner."""

USED_UP: Final = (
    *RATE,
    *_phrases("limit reached | limit exceeded | quota … exceeded | exceeded … quota"),
)
"""These tell of a quota where there is no status code: "/daily" may be part of an address."""

GOOGLE: Final = _phrases(
    """
    please retry in | resource exhausted | generativelanguage | ai google dev | gemini
    """
)
"""By these a used-up quota is one of Gemini, which speaks of "plan and billing" for a minute."""

MONEY: Final = _phrases(
    """
    insufficient quota | insufficient balance | insufficient credit | insufficient fund |
    insufficient wallet | not enough credit | not enough balance | credit balance | credit limit |
    credits expired | credit expired | credits are depleted | credits are exhausted |
    credits are required | no prepaid | no credit left | no credits left | no remaining credits |
    out of credits | any credits | more credits | prepayment credits | included credits |
    all available credits | usage credits | balance is depleted | balance is empty |
    balance is too low | account balance | arrears | overdue | spend limit | spending limit |
    budget has been exceeded | budget exceeded | exceeded budget | budget exhausted |
    crossed budget | max budget | billing hard limit | billing limit | billing not active |
    billing error | billing disabled | billing to be enabled | enable billing | billing or payment |
    issue with your billing | check your billing | check your plan and billing |
    payment required | paid plan | past invoices | account is not active | suspended |
    organization has been disabled | organization has been restricted | organization restricted |
    access was terminated | access terminated | api usage limits | usage limit exceeded |
    organization usage limit | usage limits … regain | monthly token limit | usage limits exceeded |
    free tier … exhausted | usage limit reached | reached your usage limit$ | monthly … budget |
    budget reached | budget limit | set up billing | budget has been reached | billing account |
    subscription expired | subscription has expired | no active subscription |
    extra usage is required | key limit exceeded | temporarily been blocked | temporarily blocked |
    欠 费 | 余 额 不 足
    """
)

POLICY: Final = _phrases(
    """
    block reason | content policy | content filter | filtered due to | content management policy |
    content exists risk | content violates | policy violation | safety system | safety check |
    invalid prompt | flagged | guardrail | requires moderation | moderation policy |
    prompt blocked | response blocked | blocked output | output blocked | filtering policy |
    usage guidelines | certain word or phrase | responsible ai | prohibited content |
    data inspection failed | sensitive content | sensitive word | new sensitive | prompt injection |
    jailbreak | censor | inappropriate content | 敏 感 | 违 规
    """
)
"""The input or the answer was against a policy."""

TOO_LONG: Final = _phrases(
    """
    context length | context window | context size | context limit | context the overflows |
    maximum context | maximum model length | maximum prompt length | prompt is too long |
    prompt too long | input is too long | input too long | too many tokens | input token count |
    requested token count | too large for model | longer than the max | longer than the model |
    string too long | string above max length | reduce the length | payload size |
    payload too large | exceeds the maximum size | entity too large | body too large |
    content too large | err too big | request too large | larger than max | larger than the max |
    max new tokens must be < | max new tokens … given | keep from the initial prompt |
    inputs must have less | input length | prompt length | special tokens in the input
    """
)
"""The input is too long for every quota."""

TOO_MANY: Final = _phrases(
    """
    tokens … exceeds the | tokens … exceed the | tokens … over the limit |
    tokens … greater than the maximum
    """
)
"""Likewise, where the tokens are those of the input."""

INPUT: Final = ("input", "prompt", "context", "request has")

OUTPUT: Final = _phrases(
    """
    max tokens | max new | max completion | max output | output tokens | completion tokens |
    maximum tokens | budget | stop | logit | reasoning
    """
)
"""Tokens that are none of the input."""

EMPTY_INPUT: Final = _phrases(
    """
    must be non empty | cannot be empty | must not be empty | contents is not specified |
    must have a text parameter
    """
)

LOADING: Final = _phrases(
    """
    loading | is sleeping | waking up | scaled to zero | scaling up | is starting | zero starting |
    being started | starting up | not ready for inference | not available yet | warming up |
    cold start
    """
)

SLIP: Final = _phrases(
    """
    json validate failed | failed to generate json | tool use failed | failed to call a function |
    hallucination | invalid content | failed to parse input at pos | response from provider |
    unloaded or crashed | model has crashed | request failed during generation
    """
)
"""The model's own slip: the next sample may be good."""

CAPACITY: Final = _phrases(
    """
    overload | over capacity | at capacity | no capacity | out of capacity | capacity exceeded |
    capacity temporarily exceeded | current capacity | high demand | high traffic |
    high amounts of traffic | too busy | server busy | service busy | busy … retry | queue is full |
    queue exceeded | queue expired | maximum pending requests | higher priority request |
    no healthy | unhealthy | no deployments available | temporarily unable |
    temporarily unavailable | temporarily rate limited | rate limited upstream |
    resource unavailable | resource exhausted please try | rate exceeded | degraded function |
    maintenance | service unavailable | currently unavailable | unable to process your request |
    访 问 量 过 大
    """
)
"""The server has too much to do, whoever asks."""

CONCURRENT: Final = _phrases(
    """
    concurren | 并 发 | max parallel request limit current parallel | limit type max parallel |
    rate limit type max parallel requests | in flight | reset reason overflow |
    too many simultaneous
    """
)

TOKENS: Final = _phrases(
    """
    tokens per | token rate | token limit | tokens limit | token quota | too many tokens |
    request tokens | input tokens | limit type tokens | type tokens | tpm$ | utilization
    """
)

KEY: Final = _phrases(
    """
    incorrect api key | invalid api key | invalid x api key | wrong api key | expired key |
    expired api key | missing subscription key | invalid subscription key |
    didnt provide an api key | api key … not valid | api key … invalid | api key expired |
    api key … leaked | api key … blocked | api key … ip address | api key invalid | key is blocked |
    key is disabled | key has been disabled | virtual key | authentication error |
    authentication fail | authorization failed | unauthenticated | invalid authentication |
    authentication scopes | invalid credentials | invalid username or password |
    rejected the credentials | invalid api token | invalid token | invalid access token |
    access token invalid | access token expired | unregistered callers | signature expired |
    authorization header | authorization field | missing authorization | request signature |
    login fail | invalid proxy server token | token is invalid | token has expired | token expired |
    security token | no auth | ip not authorized | jwt is | virtual network / firewall |
    header should match organization | no such organization | member of an organization |
    been deactivated | principal does not have access | does not have permission to get url |
    user not found
    """
)

PERMISSION: Final = _phrases(
    """
    permission | not have access | dont have access | no access to | access to the model |
    access model | model access | denied access | access denied | denied on resource |
    not authorized to perform | not authorized to access | must be verified | terms acceptance |
    missing scopes | country region | location is not supported | region is not supported |
    is not allowed to use | not allowed to access | methods are blocked | method are blocked |
    are blocked | is blocked at | blocked at the | has not been used in project |
    organization policy | prohibited by org | data policy | allowed providers |
    routing requirements | allowlist | request not allowed | rbac | is disabled |
    remote model inference | free tier of this | use case details | vpc service controls |
    legal reasons
    """
)

EDGE: Final = _phrases(
    """
    error code 1010 | error code 1020 | error code 1009 | error code 1006 | just a moment |
    cf mitigated | you have been blocked | attention required
    """
)
"""A proxy at the edge refused the client, its address or its country."""

NO_MODEL: Final = _phrases(
    """
    model … not found | model … not exist | no such model | unknown model | model … deprecated |
    model … decommissioned | model … no longer available
    """
)
"""A model is not there, whatever its name sounds like."""

MODEL: Final = NO_MODEL + _phrases(
    """
    not found the model | resolve the foundation model | model not supported | 模 型 不 存 在 |
    serving endpoint | model … not available | model … not supported by any | models … not found |
    is no longer available to | model … end of life | model … end of service | end of its life |
    was removed on | model … removed | model … retired | model … sunset |
    model identifier is invalid | model … is invalid | not a valid model | invalid model |
    unsupported model | is not found for api version | is not supported by any provider |
    no endpoints found for |
    no models loaded | unable to access model | not found for account | publisher model |
    invalid version | failed to load model | unable to load model | more system memory |
    model is unloaded | not found error … model | model claude | endpoint is paused |
    invalid state
    """
)

PARAMETER: Final = _phrases(
    """
    unsupported param | unsupported value | unsupported parameter | unknown parameter |
    unknown name | unrecognized request arg | unrecognized argument | is unsupported |
    not supported … this model | invalid value at | does not support parameter |
    does not support thinking | does not support tools | does not support assistant |
    support tool use | extra inputs | extra forbidden | extraneous key | must be in |
    must be strictly | must be less | must be greater | must be > | must be at least |
    must be between | must be one of | must be json schema | type must be | above max | below min |
    out of range | supported range | response format | json schema | schema for | word json |
    max tokens | max completion tokens | max output tokens | maximum tokens you requested |
    cannot both | may only be set | only enabled when | field required | missing field |
    deserialize | parse the json body | malformed input request | grammar | service tier argument |
    thinking mode | enable thinking | expected last role | last message must |
    messages at the end | prefill | validation error | history must | include usage | drop params |
    search is deprecated
    """
)

ADDRESS: Final = _phrases(
    """
    invalid url | unknown url | unknown request url | unexpected endpoint | deployment not found |
    api deployment | resource not found | api version not supported | operation not supported |
    operation does not work | not a chat model | does not support chat |
    does not support embeddings | page not found | file not found | default backend |
    method not allowed | not allowed to post | method not supported | 405 not allowed |
    on demand throughput | consumer invalid | denied on resource project | chat template |
    template error | find your project | x portkey | invalid provider | configure ai gateway |
    plain http request | missing authentication token | http2 header with status 404 |
    multiple authentication | request header or cookie too large | 404 not found | error 404 |
    no deployed models
    """
)
"""The address, the endpoint or the method is wrong."""

FILTER: Final = _phrases(
    """
    zscaler | netskope | fortiguard | forcepoint | blocked by your organization | block page |
    company filter | err access denied | err cache access denied | network authentication required
    """
)
"""A filter, a proxy or a portal of the network answered."""

NO_NAME: Final = _phrases(
    """
    failed to connect to all addresses | errors resolving | dns resolution failed |
    name resolution | name or service not known | ping timeout | keepalive watchdog timeout |
    err dns fail | err connect fail
    """
)
"""Nobody is there."""
