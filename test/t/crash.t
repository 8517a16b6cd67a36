# The worker, another backend or the server dies, at named points and between: nothing is lost, nothing happens twice.
use strict;
use warnings;
use OpsRunner;
use Test::More;
use Time::HiRes qw(sleep time);

my $ops = OpsRunner->start('crash');
my $node = $ops->{node};

sub seconds_of
{
	my ($action) = @_;
	my $begin = time;
	$action->();
	return time - $begin;
}

# A run that stops at the point, once, and then goes on.
sub run_through
{
	my ($stop, $name) = @_;
	$ops->stop_at($stop);
	my $run;
	$ops->survive(sub {
		$run = $ops->queue($ops->environment($name));
		OpsRunner::until("stop point $stop", sub { $ops->stop_points_passed });
	});
	$ops->succeeds($run);
	return $run;
}

# The same, after the commit before the point has reached the disk; what is not flushed may be lost in a crash.
sub flush_and_kill_at
{
	my ($point, $name) = @_;
	$ops->stop_at("$point sleep=60000");
	my $run = $ops->queue($ops->environment($name));
	OpsRunner::until("stop point $point", sub { $ops->stop_points_passed });
	$ops->sql(q{SELECT pg_logical_emit_message(true, 'test', 'flush')});
	$ops->survive(sub { kill KILL => $ops->worker });
	$ops->succeeds($run);
	return $run;
}

subtest 'F01 SIGKILL of the idle worker' => sub {
	my $resumed = $ops->survive(sub { kill KILL => $ops->worker });
	note sprintf 'a worker %.2f s after the server answered', $resumed;
	$ops->succeeds($ops->queue($ops->environment('f01')));
};

subtest 'F02 SIGKILL after the claim has committed' => sub {
	run_through('after_claim kill', 'f02');
	my $run = flush_and_kill_at('after_claim', 'f02-flushed');
	like($ops->events($run), qr/taken over by worker/, 'the next worker took the run over without waiting for the lease');
};

subtest 'F03 SIGKILL when the request is accepted and the answer is not read' => sub {
	my $run = run_through('after_send kill', 'f03');
	like($ops->events($run), qr/the effect of .*\/dispatches was found and adopted/, 'the effect was looked for');
};

subtest 'F03 SIGKILL after the intent has committed, before the request is sent' => sub {
	my $run = run_through('after_intent_commit kill', 'f03-intent');
	like($ops->events($run), qr/the effect of .*\/dispatches is proven absent/, 'the effect was looked for');
};

subtest 'F04 SIGKILL after the answer is read, before the result commits' => sub {
	my $run = run_through('before_result_commit kill', 'f04');
	like($ops->events($run), qr/the effect of .*\/dispatches was found and adopted/, 'the effect was looked for');
};

subtest 'F05 SIGKILL after the result has committed' => sub {
	run_through('after_result_commit kill', 'f05');
	my $run = flush_and_kill_at('after_result_commit', 'f05-flushed');
	unlike($ops->events($run), qr/looking for its effect/, 'there was nothing to look for');
};

subtest 'F06 SIGKILL of another backend while 8 requests are in flight' => sub {
	# They take effect after the crash: what was sent cannot be called back.
	OpsRunner::services('fault', service => 'github', operation => 'actions/create-workflow-dispatch', held => 1, times => 8);
	my @runs = map { $ops->queue($ops->environment("f06-$_", github => { search_window => '60 s' })) } 1 .. 8;
	OpsRunner::until('8 dispatches are in flight', sub {
		$ops->sql(q{SELECT count(*) FROM ops.effects WHERE effect_key = 'dispatch' AND state = 'intended'}) == 8
		  && $ops->sql('SELECT requests_in_flight FROM ops.worker_status') >= 8;
	});
	my $other = $node->background_psql('postgres');
	my $pid = $other->query_safe('SELECT pg_backend_pid()');
	$ops->survive(sub { kill KILL => $pid });
	$other->{run}->finish;
	my $of_these = q{run_id IN (SELECT run_id FROM ops.runs WHERE env_id LIKE 'f06-%')};
	OpsRunner::until('the effects are looked for', sub {
		$ops->sql("SELECT count(*) FROM ops.effects WHERE state = 'uncertain' AND $of_these") == 8;
	});
	OpsRunner::services('release', service => 'github');
	$ops->succeeds($_) for @runs;
	is($ops->sql("SELECT count(*) FROM ops.run_events WHERE message LIKE '%/dispatches was found and adopted' AND $of_these"),
		8, 'each was looked for and found');
};

subtest 'F07 SIGKILL of the postmaster' => sub {
	OpsRunner::services('fault', service => 'github', operation => 'actions/create-workflow-dispatch', hang => JSON::PP::true, times => 1);
	my $run = $ops->queue($ops->environment('f07'));
	OpsRunner::until('the dispatch hangs', sub { $ops->sql(q{SELECT 1 FROM ops.effects WHERE run_id = '} . $run . q{' AND state = 'intended'}) });
	my $worker = $ops->worker;
	my $postmaster = $node->{_pid};
	my $left = seconds_of(sub {
		$node->kill9;
		OpsRunner::until('the worker has left', sub { !OpsRunner::is_alive($worker) });
	});
	note sprintf 'the worker left after %.2f s', $left;
	cmp_ok($left, '<', 2, 'the worker leaves within 2 s');
	my $requests = OpsRunner::services('requests');
	OpsRunner::until('the postmaster is buried', sub { !kill 0 => $postmaster });
	$node->start;
	unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/still in use/, 'the server starts again at once');
	$ops->succeeds($run);
	cmp_ok(OpsRunner::services('requests'), '>', $requests, 'requests went on with the next server');
};

subtest 'F08 immediate shutdown and start' => sub {
	OpsRunner::services('fault', service => 'digitalocean', operation => 'apps_update', held => 1);
	my $run = $ops->queue($ops->environment('f08', digitalocean => { search_window => '60 s' }));
	my $effect = "SELECT state FROM ops.effects WHERE run_id = '$run' AND effect_key = 'put_app'";
	OpsRunner::until('the new spec is sent', sub { $ops->sql($effect) eq 'intended' });
	$node->stop('immediate');
	$node->start;
	OpsRunner::until('the effect is looked for', sub { ($ops->ask($effect) // '') eq 'uncertain' });
	OpsRunner::services('release', service => 'digitalocean');
	$ops->succeeds($run);
};

subtest 'F09 fast shutdown beside 50 hung requests' => sub {
	OpsRunner::services('fault', service => 'github', operation => 'actions/create-workflow-dispatch', hang => JSON::PP::true, times => 50);
	my @runs = map { $ops->queue($ops->environment("f09-$_", phases => [ { name => 'build_image', kind => 'github_workflow' } ])) } 1 .. 50;
	OpsRunner::until('50 requests hang', sub {
		$ops->sql(q{SELECT count(*) FROM ops.effects WHERE effect_key = 'dispatch' AND state = 'intended'}) == 50
		  && $ops->sql('SELECT requests_in_flight FROM ops.worker_status') == 50;
	});
	my $stopped = seconds_of(sub { $node->stop('fast') });
	note sprintf 'stopped after %.2f s', $stopped;
	cmp_ok($stopped, '<', 5, 'the server stops within 5 s');
	$node->start;
	my %ended = map { $ops->ended($_) => 1 } @runs;
	is_deeply([ keys %ended ], ['success'], 'all runs succeed');
	my $unknown = $ops->sql(q{SELECT count(DISTINCT run_id) FROM ops.run_events WHERE message LIKE 'the answer to%is unknown; looking for its effect%' AND run_id IN (SELECT run_id FROM ops.runs WHERE env_id LIKE 'f09-%')});
	is($unknown, 50, 'every hung request was uncertain, none failed');
};

subtest 'F10 a terminated worker comes back by itself' => sub {
	OpsRunner::services('set', service => 'github', buildMs => 2000);
	my $run = $ops->queue($ops->environment('f10'));
	OpsRunner::until('the build is dispatched', sub { $ops->events($run) =~ /dispatched/ });
	my $before = $ops->worker;
	my $back = seconds_of(sub {
		$ops->sql("SELECT pg_terminate_backend($before)");
		$ops->worker($before);
	});
	note sprintf 'the next worker worked after %.2f s', $back;
	cmp_ok($back, '<', 5, 'it is back soon');
	OpsRunner::services('set', service => 'github', buildMs => 300);
	$ops->succeeds($run);
	like($ops->events($run), qr/taken over by worker/, 'it took the run over');
};

subtest 'F11 SIGSTOP for longer than the lease, then SIGCONT' => sub {
	OpsRunner::services('set', service => 'github', buildMs => 600_000);
	$ops->sql(q{ALTER SYSTEM SET ops_runner.lease = '2s'});
	$node->reload;
	my $run = $ops->queue($ops->environment('f11', github => { poll_interval => '10 min' }));
	OpsRunner::until('the build is dispatched', sub { $ops->events($run) =~ /dispatched/ });
	my $worker = $ops->worker;
	# Not in the middle of a transaction: what it has locked nobody could take.
	OpsRunner::until('the worker waits, stopped', sub {
		kill STOP => $worker;
		return 1 if $ops->sql("SELECT xact_start IS NULL FROM pg_stat_activity WHERE pid = $worker") eq 't';
		kill CONT => $worker;
		return 0;
	});
	my $claimed = OpsRunner::until('a worker outside takes the run', sub { $ops->sql(q{SELECT run_id FROM ops.claim_next_run('outside')}) });
	is($claimed, $run, 'the lease was over and the run was given to the worker outside');
	kill CONT => $worker;
	OpsRunner::until('the old holder has let go', sub { $ops->sql('SELECT running_runs FROM ops.worker_status') == 0 });
	$ops->sql("SELECT ops.append_event('$run', 'info', 'still mine'); SELECT ops.finish_run('$run', 'success')");
	my $events = $ops->events($run);
	like($events, qr/claimed by worker outside\n.*still mine\n.*finished as success by outside\s*$/, 'the old holder wrote nothing any more');
	is(OpsRunner::effects('actions/create-workflow-dispatch')->{ $ops->tokens($run)->{build_image} }, 1, 'one dispatch');
	is($ops->worker, $worker, 'the worker lives on');
	OpsRunner::services('set', service => 'github', buildMs => 300);
	$ops->succeeds($ops->queue($ops->environment('f11-after')));
};

subtest 'F68 a build that ended while the server was down for a day' => sub {
	OpsRunner::services('set', service => 'github', buildMs => 600_000);
	my $run = $ops->queue($ops->environment('f68', github => { poll_interval => '2 s' }));
	OpsRunner::until('the build is dispatched', sub { $ops->events($run) =~ /dispatched/ });
	$ops->sql("UPDATE ops.run_phases SET started_at = started_at - interval '1 day' WHERE run_id = '$run' AND state = 'running'");
	$node->stop;
	OpsRunner::services('set', service => 'github', buildMs => 300);
	$node->start;
	$ops->succeeds($run);
};

subtest 'all in all' => sub { $ops->sound };

done_testing();
