module claudemesh

go 1.22
