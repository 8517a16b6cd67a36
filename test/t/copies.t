# Copies of a database and of a whole server: they stay disarmed until a superuser arms them.
use strict;
use warnings;
use OpsRunner;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $origin = OpsRunner->start('origin', init => { allows_streaming => 1, has_archiving => 1 });
my $node = $origin->{node};

# Longer than several safety checks of the worker.
my $watch_seconds = $ENV{OPS_WATCH_SECONDS} // 3;

# Nothing is asked of the services for a while.
sub all_is_quiet
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $requests = OpsRunner::services('requests');
	my $end = time + $watch_seconds;
	sleep 0.1 while time < $end;
	is(OpsRunner::services('requests'), $requests, $what);
}

sub disarmed
{
	my ($ops, $what, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $state = OpsRunner::until("$what is disarmed", sub {
		my $found = $ops->ask('SELECT state FROM ops.worker_status', $database) // '';
		return $found =~ /^disarmed/ ? $found : '';
	});
	like($state, qr/ops\.arm\(\)/, "$what says how it is armed");
	my ($out, $err);
	isnt($ops->{node}->psql($database // 'postgres', q{SELECT * FROM ops.claim_next_run('outside')}, stderr => \$err), 0, "$what gives out no runs");
	like($err, qr/is a copy and gives out no runs/, 'and says why');
}

subtest 'F38 dump and restore into another database' => sub {
	$origin->succeeds($origin->queue($origin->environment('f38-done')));
	$origin->sql(q{ALTER SYSTEM SET ops_runner.max_concurrent_runs = 0});
	$node->reload;
	OpsRunner::until('the worker claims nothing', sub { $origin->sql('SHOW ops_runner.max_concurrent_runs') == 0 });
	$origin->environment('f38');
	my $running = $origin->queue($origin->environment('f38-running'));
	is($origin->sql(q{SELECT run_id FROM ops.claim_next_run('outside')}), $running, 'one run is claimed');
	$origin->sql("SELECT ops.append_event('$running', 'info', 'begun')");
	my $queued = $origin->queue('f38');

	my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
	$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, 'postgres' ], 'pg_dump');
	$origin->sql('CREATE DATABASE restored');
	$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'restored', $dump ], 'pg_restore');
	$origin->sql('ALTER SYSTEM RESET ops_runner.max_concurrent_runs');
	$node->reload;
	$origin->sql("SELECT ops.finish_run('$running', 'success')");
	$origin->succeeds($queued);

	disarmed($origin, 'the restored database', 'restored');
	is($origin->sql('SELECT count(*) FROM ops.environments', 'restored'), 3, 'its configuration has arrived');
	is($origin->sql('SELECT status FROM ops.runs WHERE run_id IN (' . "'$running', '$queued') ORDER BY queued_at", 'restored'),
		"running\nqueued", 'restored runs stand as they were');
	my ($text) = run_command([ 'pg_restore', '-f', '-', $dump ]);
	my @secrets = map { (slurp_file($_) =~ /(\S{12,})/)[0] // () } glob "$ENV{OPS_SECRETS}/*";
	is(scalar(grep { index($text, $_) >= 0 } @secrets), 0, 'secrets are not in the dump');
};

# A build that was asked for and whose answer is not there; it takes effect after the copies were made.
OpsRunner::services('fault', service => 'github', operation => 'actions/create-workflow-dispatch', held => 1);
my $open = $origin->queue($origin->environment('open', github => { search_window => '60 s' }));
OpsRunner::until('the dispatch is sent', sub { $origin->sql("SELECT state FROM ops.effects WHERE run_id = '$open'") eq 'intended' });
$node->backup('base');

sub copy
{
	my ($name, $conf, %options) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($name);
	$copy->init_from_backup($node, 'base', standby => 0, %options);
	$copy->append_conf('postgresql.conf', $conf);
	$copy->start;
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	return OpsRunner->around($copy);
}

my $base = copy('base_copy', '');
my $pitr = copy('pitr', "recovery_target = 'immediate'\nrecovery_target_action = 'promote'\n", has_restoring => 1);

my $twin;

subtest 'F19 the same data directory twice: a cold copy beside the original' => sub {
	$node->stop;
	$node->backup_fs_cold('base_cold');
	my $copy = PostgreSQL::Test::Cluster->new('twin');
	$copy->init_from_backup($node, 'base_cold', standby => 0);
	$copy->append_conf('postgresql.conf', "archive_mode = off\n");
	$copy->start;
	$twin = OpsRunner->around($copy);
	disarmed($twin, 'the second server');
	like(slurp_file($copy->logfile), qr/is disarmed and stays idle/, 'its log says so');
};

subtest 'F39 a base backup and a point-in-time restore beside the original' => sub {
	disarmed($base, 'the base backup');
	disarmed($pitr, 'the restore to a point in time');
	isnt($pitr->sql('SELECT timeline_id FROM pg_control_checkpoint()'), $base->sql('SELECT timeline_id FROM pg_control_checkpoint()'),
		'the restore has a timeline of its own');
};

subtest 'F19 F38 F39 all of them beside the original: nobody asks for anything but it' => sub {
	my @copies = ($twin, $base, $pitr);
	$_->queue('f38') for @copies;
	$node->start;
	OpsRunner::until('the original looks for its dispatch', sub { $origin->events($open) =~ /looking for its effect/ });
	OpsRunner::services('release', service => 'github');
	$origin->succeeds($open);
	all_is_quiet("four servers and a restored database ask for nothing in $watch_seconds s");
	is($_->status($open), 'running', 'what the copy was doing stands as it was') for @copies;
	is($_->sql(q{SELECT count(*) FROM ops.run_queue}), 1, 'a run queued in a copy waits') for @copies;
	is($origin->sql(q{SELECT count(*) FROM ops.runs WHERE status IN ('queued', 'running')}, 'restored'), 2, 'restored runs as well');
	is($twin->log_count('is disarmed and stays idle'), 2, 'the log of the second server says it once for each database');
	$origin->sql('DROP DATABASE restored');
	$_->{node}->stop for $twin, $base, $origin;
};

subtest 'F39 the copy goes on when it is armed' => sub {
	like($pitr->sql('SELECT ops.arm()'), qr/^armed for server/, 'ops.arm()');
	OpsRunner::until('the dispatch is looked for', sub { $pitr->events($open) =~ /looking for its effect/ });
	$pitr->succeeds($open);
	like($pitr->events($open), qr/the effect of .*\/dispatches was found and adopted/, 'what the original did was found');
	OpsRunner::until('all runs end', sub { $pitr->sql('SELECT count(*) FROM ops.run_slots') == 0 && $pitr->sql('SELECT count(*) FROM ops.run_queue') == 0 });
	$pitr->sound;
};

done_testing();
