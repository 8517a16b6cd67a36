# A server with the extension, its stand-in services, and what tests ask of both. Every wait is for a condition.
package OpsRunner;
use strict;
use warnings;
use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $services = decode_json($ENV{OPS_SERVICES});
my $http = HTTP::Tiny->new(timeout => 60);
my $sha = '0123456789abcdef0123456789abcdef01234567';

# Services -------------------------------------------------------------------------------------------------------------

# services('accepted', operation => ...): a command of test/services/main.mjs.
sub services
{
	my ($command, %arguments) = @_;
	my $answer =
	  $http->post("$services->{control}/$command", { content => encode_json(\%arguments) });
	die "$command: $answer->{content}" unless $answer->{success};
	return JSON::PP->new->allow_nonref->decode($answer->{content});
}

my %counted = ('actions/create-workflow-dispatch' => 'build_image', 'apps_update' => 'deploy_runtime');

# How often each effect was accepted, by its key; of one operation, or of all.
sub effects
{
	my ($operation) = @_;
	my %times;
	for my $name ($operation // keys %counted)
	{
		$times{ $_->{key} // 'without key' }++ for @{ services('accepted', operation => $name) };
	}
	return \%times;
}

# Server ---------------------------------------------------------------------------------------------------------------

sub settings
{
	my (%more) = @_;
	my %all = (
		'shared_preload_libraries' => 'ops_runner',
		'restart_after_crash' => 'on',
		'log_statement' => 'none',
		'log_replication_commands' => 'off',
		'max_connections' => 60,
		'max_worker_processes' => 20,
		'shared_buffers' => '32MB',
		'ops_runner.secrets_directory' => $ENV{OPS_SECRETS},
		'ops_runner.allowed_hosts' => $services->{allowedHosts},
		'ops_runner.mutation_interval' => 0,
		'ops_runner.retry_delay' => '20ms',
		'ops_runner.poll_interval' => '500ms',
		'ops_runner.lease' => '10min',
		%more);
	return join '', map { "$_ = '$all{$_}'\n" } sort keys %all;
}

# A new server whose worker works. Options: init => arguments of Cluster::init, settings => {name => value}.
sub start
{
	my ($class, $name, %options) = @_;
	my $self = $class->around(PostgreSQL::Test::Cluster->new($name));
	$self->{node}->init(%{ $options{init} // {} });
	$self->{node}->append_conf('postgresql.conf', settings(%{ $options{settings} // {} }));
	$self->{node}->start;
	$self->sql(q{
		CREATE EXTENSION ops_runner;
		INSERT INTO ops.projects (project_id, name, repo_slug, odoo_version) VALUES ('acme', 'Acme', 'acme/odoo', '19.0')});
	$self->worker;
	return $self;
}

# The same questions to a server that exists already: a copy, a standby.
sub around
{
	my ($class, $node) = @_;
	return bless { node => $node, kills => 0 }, $class;
}

# Result of a query that must succeed.
sub sql
{
	my ($self, $query, $database) = @_;
	return $self->{node}->safe_psql($database // 'postgres', $query);
}

# Result of a query, or undef where the server does not answer.
sub ask
{
	my ($self, $query, $database) = @_;
	my ($out, $err);
	my $status = $self->{node}->psql($database // 'postgres', $query, stdout => \$out, stderr => \$err, on_error_stop => 1);
	return $status == 0 ? $out : undef;
}

# Calls until it returns something true.
sub until
{
	my ($what, $look, $seconds) = @_;
	my $end = time + ($seconds // 60);
	for (;;)
	{
		my $found = $look->();
		return $found if $found;
		die "not in time: $what" if time > $end;
		sleep 0.03;
	}
}

# Waits until the worker of a server has begun so many transactions, such as its safety checks when it has nothing to do.
sub looks
{
	my ($self, $times) = @_;
	my %begun;
	OpsRunner::until("the worker looks $times times", sub {
		my $at = $self->ask(q{SELECT max(query_start) FROM pg_stat_activity WHERE backend_type = 'ops_runner worker' AND datname = 'postgres'});
		$begun{$at} = 1 if $at;
		return keys %begun > $times;
	});
}

# Process of the worker, when it works; other than $before.
sub worker
{
	my ($self, $before) = @_;
	return OpsRunner::until('the worker works', sub {
		my $pid = $self->ask(q{SELECT pid FROM ops.worker_status WHERE state = 'working'});
		return $pid && $pid ne ($before // '') ? $pid : 0;
	});
}

sub log_count
{
	my ($self, $text) = @_;
	return scalar(() = slurp_file($self->{node}->logfile) =~ /\Q$text\E/g);
}

# Does something that takes the whole server down once, and waits until the next worker works. Seconds from the first
# accepted connection to that worker.
sub survive
{
	my ($self, $action) = @_;
	my $before = $self->worker;
	$self->{kills}++;
	$action->();
	OpsRunner::until('the server has noticed', sub { $self->crashes == $self->{kills} });
	OpsRunner::until('the server answers', sub { defined $self->ask('SELECT 1') });
	my $answers = time;
	$self->worker($before);
	return time - $answers;
}

sub crashes { return $_[0]->log_count('terminating any other active server processes'); }

# Arms a stop point: "after_claim kill", see src/pg/faults.hpp.
sub stop_at
{
	my ($self, $line) = @_;
	append_to_file($self->{node}->data_dir . '/ops_faults', "$line\n");
}

sub stop_points_passed
{
	my ($self) = @_;
	my $file = $self->{node}->data_dir . '/ops_faults';
	return !-e $file || !-s $file;
}

sub is_alive
{
	my ($pid) = @_;
	open my $stat, '<', "/proc/$pid/stat" or return 0;
	return (<$stat> // '') =~ /^\d+ \(.*\) [^ZX]/ ? 1 : 0;
}

# Runs -----------------------------------------------------------------------------------------------------------------

# An environment with an app and an image of its own. Changes: section => {key => value}.
sub environment
{
	my ($self, $name, %changes) = @_;
	$changes{$_} = { search_window => '300 ms', %{ $changes{$_} // {} } } for qw(github digitalocean);
	my $config = encode_json(services('environment', name => $name, changes => \%changes));
	$self->sql(qq{INSERT INTO ops.environments (env_id, project_id, env_type, config) VALUES ('$name', 'acme', 'staging', \$\$$config\$\$)});
	return $name;
}

sub queue
{
	my ($self, $environment) = @_;
	return $self->sql("SELECT run_id FROM ops.queue_run('acme', '$environment', '$sha', 'main')");
}

sub status
{
	my ($self, $run) = @_;
	return $self->ask("SELECT status || coalesce(' for ' || waiting_for, '') FROM ops.runs WHERE run_id = '$run'") // '';
}

# Status of the run when nothing goes on any more.
sub ended
{
	my ($self, $run) = @_;
	return OpsRunner::until("$run ends", sub {
		my $status = $self->status($run);
		return $status =~ /^(success|failed|cancelled|waiting)/ ? $status : '';
	});
}

sub events
{
	my ($self, $run) = @_;
	return $self->sql("SELECT concat_ws(' ', seq, level, phase, message, payload ->> 'code') FROM ops.run_events WHERE run_id = '$run' ORDER BY seq");
}

sub tokens
{
	my ($self, $run) = @_;
	return { split /[|\n]/, $self->sql("SELECT phase, remembered ->> 'run_token' FROM ops.run_phases WHERE run_id = '$run' AND remembered ? 'run_token'") };
}

# The run has succeeded, and each of its effects was accepted once.
sub succeeds
{
	my ($self, $run) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($self->ended($run), 'success', 'the run succeeds') or diag $self->events($run);
	my $tokens = $self->tokens($run);
	for my $operation (sort keys %counted)
	{
		is(effects($operation)->{ $tokens->{ $counted{$operation} } // '' }, 1, "$operation was accepted once");
	}
}

# What must hold at the end of every test: the server was re-initialised only by us, nothing happened twice or for a run that
# does not exist, every run has ended, events have no gaps.
sub sound
{
	my ($self) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($self->crashes, $self->{kills}, 're-initialisations of the server are those of the test');
	my $times = effects();
	is_deeply([ grep { $times->{$_} > 1 } sort keys %$times ], [], 'no effect happened twice');
	my %known = map { $_ => 1 } split /\n/, $self->sql(q{SELECT remembered ->> 'run_token' FROM ops.run_phases WHERE remembered ? 'run_token'});
	is_deeply([ grep { !$known{$_} } sort keys %$times ], [], 'every effect belongs to a run');
	is($self->sql(q{SELECT count(*) FROM ops.runs WHERE status NOT IN ('success', 'failed', 'cancelled')}), 0, 'every run has ended');
	is($self->sql(q{SELECT count(*) FROM ops.runs r LEFT JOIN (SELECT run_id, min(seq) AS first, max(seq) AS last, count(*) AS events FROM ops.run_events GROUP BY run_id) e
		USING (run_id) WHERE (e.first, e.last) IS DISTINCT FROM (1, e.events)}), 0, 'events have no gaps');
	is_deeply(services('invalid'), [], 'every request was valid');
}

1;
