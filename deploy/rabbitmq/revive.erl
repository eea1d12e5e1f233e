%% Brings quorum queues back to life that RabbitMQ lost the name of when it was killed (docs/operations.md):
%%   rabbitmqctl eval "$(cat deploy/rabbitmq/revive.erl)"
%% A queue that answers is left alone, and so is one with members on other nodes. Of a dead one the folder with
%% its messages is found and put back in place; if there is none, the queue begins empty.
#{data_dir := Dir, names := #{directory_rev := Names}} = ra_system:fetch(quorum_queues),
Folders = fun(Name) ->
    [{filelib:last_modified(filename:dirname(File)), list_to_binary(filename:basename(filename:dirname(File)))}
     || File <- filelib:wildcard(filename:join([Dir, "*", "config"])),
        {ok, [#{id := {Id, _}}]} <- [file:consult(File)],
        Id =:= Name,
        filelib:wildcard(filename:join(filename:dirname(File), "*.segment")) =/= []]
end,
Revive = fun(Name) ->
    Server = {Name, node()},
    Known = [UId || {_, UId} <- dets:lookup(Names, Name)],
    case lists:reverse(lists:sort([Found || {_, UId} = Found <- Folders(Name), not lists:member(UId, Known)])) of
        [{_, UId} | _] ->
            _ = ra:stop_server(quorum_queues, Server),
            ok = dets:insert(Names, {Name, UId}),
            ok = dets:sync(Names),
            {with_its_messages, ra:restart_server(quorum_queues, Server)};
        [] ->
            case ra:restart_server(quorum_queues, Server) of
                ok -> {started, ok};
                _ -> {empty, ra:trigger_election(Server)}
            end
    end
end,
[{element(4, amqqueue:get_name(Q)), Revive(Name)}
 || Q <- rabbit_amqqueue:list(),
    amqqueue:get_type(Q) =:= rabbit_quorum_queue,
    {Name, _} <- [amqqueue:get_pid(Q)],
    maps:get(nodes, amqqueue:get_type_state(Q)) =:= [node()],
    element(1, ra:members({Name, node()}, 3000)) =/= ok].
