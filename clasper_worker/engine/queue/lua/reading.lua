-- Whose a message is, and which session's.

local function uuid5(namespace_hex, name)
  local bytes = string.gsub(namespace_hex, '..', function(x) return string.char(tonumber(x, 16)) end)
  local h = redis.sha1hex(bytes .. name)
  local variant = string.format('%x', 8 + tonumber(string.sub(h, 17, 17), 16) % 4)
  return table.concat({
    string.sub(h, 1, 8), string.sub(h, 9, 12), '5' .. string.sub(h, 14, 16),
    variant .. string.sub(h, 18, 20), string.sub(h, 21, 32),
  }, '-')
end

local function is_blank(code)
  -- BLANK: the first and the last of each range, in order (identifiers.py).
  for i = 1, #BLANK, 2 do
    if code <= BLANK[i + 1] then return code >= BLANK[i] end
  end
  return false
end

local function character(x, at)
  -- The code point whose UTF-8 begins there, and of how many bytes. Of what is no UTF-8, which no
  -- worker can read either, some number.
  local a, b, c, d = string.byte(x, at, at + 3)
  b, c, d = (b or 128) - 128, (c or 128) - 128, (d or 128) - 128
  if a < 192 then return a, 1 end
  if a < 224 then return (a - 192) * 64 + b, 2 end
  if a < 240 then return ((a - 224) * 64 + b) * 64 + c, 3 end
  return (((a - 240) * 64 + b) * 64 + c) * 64 + d, 4
end

local function text(x)
  -- As clean_identifier, character by character: a pattern's time may grow with the square.
  if type(x) ~= 'string' then return nil end
  local first, last = 1, #x
  while first <= last do
    local code, size = character(x, first)
    if not is_blank(code) then break end
    first = first + size
  end
  while last >= first do
    local start = last
    while start > first and start > last - 3 do
      local byte = string.byte(x, start)
      if byte < 128 or byte > 191 then break end
      start = start - 1
    end
    local code, size = character(x, start)
    if not is_blank(code) or start + size - 1 ~= last then break end
    last = start - 1
  end
  if first > last then return nil end
  return string.sub(x, first, last)
end

-- Protocol 1, of older Celery and of many clients in other languages: the body is an object that
-- names the task, and the headers are empty or missing.

local function body_text(message)
  local body = message.body
  if message.properties.body_encoding == 'base64' then body = base64_decode(body) end
  return body
end

local function body_arguments(message)
  if message.kwargs ~= nil then return message.kwargs end
  return cjson.decode(body_text(message))[2]
end

local function whose(message, kwargs)
  -- The message's user, lane, busy policy, turn, whether it gives way to others, and its session.
  local job, yields = message.headers.id, message.headers.task == 'clasper.heartbeat'
  local user = type(kwargs) == 'table' and text(kwargs.user_id)
  if not user then return '', '', '', job end  -- the task itself says what is wrong with it
  local session = not yields and text(kwargs.session_key)
  if not session then session = 'user:' .. user .. ':' .. (text(kwargs.agent_role) or 'default') end
  local lane = redis.sha1hex(#user .. ':' .. user .. session)
  if yields then return user, lane, 'reject', job, true, session end
  local turn, key = job, text(kwargs.idempotency_key)
  if key then
    -- As turn/models.py, whose lengths are in characters.
    local _, continuation = string.gsub(user, '[\128-\191]', '')
    turn = uuid5(how.namespace, (#user - continuation) .. ':' .. user .. ':' .. key)
  end
  local metadata = kwargs.metadata
  local busy = type(metadata) == 'table' and metadata.busy
  return user, lane, type(busy) == 'string' and busy or '', turn, false, session
end

local function route(message)
  local task, said = message.headers.task, message.headers.clasper_route
  if task ~= 'clasper.send' and task ~= 'clasper.heartbeat' then
    return '', '', '', message.headers.id
  end
  if type(said) == 'table' then return whose(message, said) end
  local readable, kwargs = pcall(body_arguments, message)
  return whose(message, readable and kwargs)
end

local function is_as_said(message)
  -- Whether the body asks for what the header `clasper_route` says: before it does anything to
  -- another's turn. Nil where the body cannot be read here, being compressed, say.
  local said = message.headers.clasper_route
  if type(said) ~= 'table' then return true end
  local readable, kwargs = pcall(body_arguments, message)
  if not readable then return nil end
  local user, lane, busy, turn = whose(message, kwargs)
  local said_user, said_lane, said_busy, said_turn = whose(message, said)
  return user == said_user and lane == said_lane and busy == said_busy and turn == said_turn
end

-- Whether it is a message at all.

local function is_utf8(name)
  -- A worker could read no answer that has a name in it which is not; Redis' JSON lets it pass.
  if not string.find(name, '[\128-\255]') then return true end
  if string.find(name, '\224[\128-\159]') or string.find(name, '\237[\160-\191]')
    or string.find(name, '\240[\128-\143]') or string.find(name, '\244[\144-\191]') then
    return false
  end
  name = string.gsub(name, '[\240-\244][\128-\191][\128-\191][\128-\191]', ' ')
  name = string.gsub(name, '[\224-\239][\128-\191][\128-\191]', ' ')
  name = string.gsub(name, '[\194-\223][\128-\191]', ' ')
  return not string.find(name, '[\128-\255]')
end

local function is_name(x) return type(x) == 'string' and text(x) ~= nil and is_utf8(x) end

local function older(message)
  -- A message of protocol 1 with the headers that one of protocol 2 would have; else nil.
  local readable, body = pcall(cjson.decode, body_text(message))
  if not readable or type(body) ~= 'table' or not is_name(body.id) then return nil end
  message.headers.id, message.headers.task = body.id, body.task
  message.kwargs = body.kwargs or false
  return message
end

local function read(raw)
  -- The message, else nil and the id of the job that it is, where that can be told all the same:
  -- Celery sends it a second time, for answers by way of a queue.
  local readable, message = pcall(cjson.decode, raw)
  if not readable or type(message) ~= 'table' or type(message.properties) ~= 'table' then
    return nil
  end
  local properties, headers = message.properties, message.headers
  local tag = properties.delivery_tag
  if type(tag) ~= 'number' and not is_name(tag) then return nil end
  message.kwargs = nil
  if type(headers) ~= 'table' then message.headers = {} end
  if not is_name(message.headers.id) then
    local known, found = pcall(older, message)
    message = known and found or nil
  end
  if not message then
    local job = properties.correlation_id
    return nil, is_name(job) and job or nil
  end
  if type(tag) == 'number' then properties.delivery_tag = message.headers.id end
  return message
end
