# Errors and crashes inside the worker's own code, at every stop point of the test build.
use strict;
use warnings;
use OpsRunner;
use PostgreSQL::Test::Utils;
use Test::More;

my $ops = OpsRunner->start('points');
my @points = qw(after_claim before_resume after_intent_commit after_send before_result_commit after_result_commit);

subtest 'release builds contain no stop point' => sub {
	my %symbols = (release => $ENV{OPS_RELEASE}, faults => $ops->{node}->config_data('--pkglibdir') . '/ops_runner.so');
	for my $build (sort keys %symbols)
	{
		my ($text) = run_command([ 'strings', '-a', $symbols{$build} ]);
		my ($names) = run_command([ 'nm', '-C', $symbols{$build} ]);
		my $found = join ' ', (grep { $text =~ /\b\Q$_\E\b/ } @points, 'ops_faults'), $names =~ /\b(stop_point_action|install_faults)\b/g;
		if ($build eq 'release') { is($found, '', 'not a word of them') }
		else { like($found, qr/@points ops_faults.*stop_point_action/, 'the build for tests has them all') }
	}
};

for my $action (qw(throw raise))
{
	for my $point (@points)
	{
		subtest "F12 $action at $point" => sub {
			my $worker = $ops->worker;
			my $session = $ops->{node}->background_psql('postgres');
			my $backend = $session->query_safe('SELECT pg_backend_pid()');
			$ops->stop_at("$point $action");
			my $run = $ops->queue($ops->environment("f12-$point-$action"));
			OpsRunner::until('the stop point is passed', sub { $ops->stop_points_passed });
			my $status = $ops->ended($run);
			like($status, qr/^(success|failed)$/, "the run ends as $status");
			$status eq 'success'
			  ? $ops->succeeds($run)
			  : like($ops->events($run), qr/error .*fault/, 'with an error that says what happened');
			is($ops->worker, $worker, 'the worker lives on');
			is($session->query_safe('SELECT pg_backend_pid()'), $backend, 'other sessions are not disturbed');
			$session->quit;
			$ops->succeeds($ops->queue($ops->environment("f12-$point-$action-after")));
		};
	}
}

for my $point (@points)
{
	subtest "F14 segmentation fault at $point" => sub {
		$ops->stop_at("$point segv");
		my $run;
		$ops->survive(sub {
			$run = $ops->queue($ops->environment("f14-$point"));
			OpsRunner::until('the stop point is passed', sub { $ops->stop_points_passed });
		});
		$ops->succeeds($run);
	};
}

subtest 'F16 a run that kills the worker each time is parked' => sub {
	my $session = $ops->{node}->background_psql('postgres');
	$ops->environment('f16');
	$session->query_safe('BEGIN');
	my ($run) = $session->query_safe(q{SELECT run_id FROM ops.queue_run('acme', 'f16', '0123456789abcdef', 'main')}) =~ /(run-\S+)/;
	$ops->stop_at("before_resume kill run=$run always");
	# The worker may take the server down before the answer arrives.
	eval { $session->query_safe('COMMIT') };
	$ops->{kills} += 3;
	is($ops->ended($run), 'waiting for poisoned', 'the run is parked');
	$session->{run}->finish;
	like($ops->events($run), qr/\(1 of 3\).*\(2 of 3\).*\(3 of 3\)/s, 'each death was counted');
	is($ops->crashes, $ops->{kills}, 'it took the worker down three times');
	$ops->succeeds($ops->queue($ops->environment('f16-other')));
	is($ops->status($run), 'waiting for poisoned', 'it stays parked while others go on');
	unlink $ops->{node}->data_dir . '/ops_faults';
	$ops->sql("SELECT ops.reset_run('$run', 'mended')");
	$ops->succeeds($run);
};

subtest 'all in all' => sub { $ops->sound };

done_testing();
