"""A chat template for models whose own knows no tools."""

CHATML_WITH_TOOLS = """\
{%- set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}
{%- set turns = messages[1:] if messages[0]['role'] == 'system' else messages %}
{%- if system or tools %}
    {{- '<|im_start|>system\\n' + system }}
    {%- if tools %}
        {{- '\\n\\n' if system else '' }}
        {{- 'You may call these functions:\\n<tools>' }}
        {%- for tool in tools %}{{- '\\n' + (tool.function | default(tool) | tojson) }}{%- endfor %}
        {{- '\\n</tools>\\nA call is written as\\n<tool_call>\\n' }}
        {{- '{"name": <function>, "arguments": <object>}\\n</tool_call>' }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in turns %}
    {%- if message['role'] == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message['content'] }}
        {{- '\\n</tool_response><|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') }}
        {%- for call in message['tool_calls'] or [] %}
            {%- set function = call.function | default(call) %}
            {{- '\\n' if message['content'] or not loop.first else '' }}
            {{- '<tool_call>\\n{"name": ' + (function.name | tojson) + ', "arguments": ' }}
            {%- if function.arguments is string %}{{- function.arguments }}
            {%- else %}{{- function.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
"""ChatML with Hermes' tool calls, for a chat model that ends its turns in `<|im_end|>` and whose
own template leaves tools out, such as SmolLM2.

Set it before the model is tuned, and keep it beside the model:

    tokenizer = AutoTokenizer.from_pretrained("model")
    tokenizer.chat_template = CHATML_WITH_TOOLS
    tokenizer.save_pretrained("model")

The model has never seen such calls: tune it on some (`call_task`) before it serves tools.
"""
