{
  "kiro_mcp": "0.2.0",
  "credits": 0.10920000000000002,
  "offline": false,
  "rows": [
    {
      "fact": "token and profile",
      "expected": "as the login's kind says",
      "seen": "api_key, API_KEY, without a profile, us-east-1",
      "outcome": "open"
    },
    {
      "fact": "list of models",
      "expected": "answered in the older form",
      "seen": "21 models",
      "outcome": "same"
    },
    {
      "fact": "list of models, kas",
      "expected": "answered in the newer form",
      "seen": "21 models",
      "outcome": "same"
    },
    {
      "fact": "members of a model",
      "expected": "only known ones",
      "seen": "new: none; missing: availableOrigins provider status",
      "outcome": "same"
    },
    {
      "fact": "models that always think",
      "expected": "claude-sonnet-5.5 claude-opus-5.5 at most",
      "seen": "claude-opus-5.5 claude-sonnet-5.5; efforts: low medium high xhigh max none",
      "outcome": "same"
    },
    {
      "fact": "usage",
      "expected": "has usageBreakdownList",
      "seen": "members daysUntilReset nextDateReset overageConfiguration subscriptionInfo usageBreakdownList userInfo",
      "outcome": "same"
    },
    {
      "fact": "profiles",
      "expected": "none for API keys and Builder IDs",
      "seen": "refused: forbidden, 403",
      "outcome": "open"
    },
    {
      "fact": "web search (InvokeMCP)",
      "expected": "lists web_search",
      "seen": "members id jsonrpc result; tools: web_search",
      "outcome": "same"
    },
    {
      "fact": "prompt",
      "expected": "ends metadataEvent contextUsageEvent meteringEvent",
      "seen": "assistantResponseEvent; no stopReason; no token counts; 0.05 credits",
      "outcome": "different"
    },
    {
      "fact": "prompt, kas",
      "expected": "ends metadataEvent contextUsageEvent meteringEvent",
      "seen": "stream_broken",
      "outcome": "failed"
    },
    {
      "fact": "effort off",
      "expected": "does not think",
      "seen": "claude-sonnet-5 does not think; 0.0148 credits",
      "outcome": "same"
    },
    {
      "fact": "image of a tool result",
      "expected": "red",
      "seen": "another answer; 0.0148 credits",
      "outcome": "different"
    },
    {
      "fact": "GPT's cache by conversationId",
      "expected": "the second costs less",
      "seen": "gpt-5.6-luna: 0.0148, then 0.0148 credits",
      "outcome": "different"
    },
    {
      "fact": "refusals",
      "expected": "__type, message, reason",
      "seen": "none met",
      "outcome": "open"
    }
  ]
}
