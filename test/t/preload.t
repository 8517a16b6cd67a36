# The library is not preloaded any more: nothing is lost, and whoever looks is told.
use strict;
use warnings;
use OpsRunner;
use Test::More;

my $ops = OpsRunner->start('preload');
my $node = $ops->{node};

subtest 'F20 shared_preload_libraries lost' => sub {
	$ops->environment('lost');
	$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{''});
	$node->restart;
	my ($run, $warning);
	is($node->psql('postgres', q{SELECT run_id FROM ops.queue_run('acme', 'lost', '0123456789abcdef', 'main')},
			stdout => \$run, stderr => \$warning), 0, 'a run is queued');
	like($warning, qr/WARNING:  no worker of this server will claim this run\nHINT:  Add ops_runner to shared_preload_libraries/, 'with a warning');
	like($ops->sql('SELECT state FROM ops.worker_status'), qr/preload/, 'the status view says why nothing happens');
	is($ops->status($run), 'queued', 'the run waits');
	$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', 'ops_runner');
	$node->restart;
	$ops->succeeds($run);
};

# Processes of ours, as "type count" lines.
sub processes
{
	return $ops->sql(q{SELECT backend_type || ' ' || count(*) FROM pg_stat_activity WHERE backend_type LIKE 'ops_runner%' GROUP BY backend_type
		ORDER BY backend_type}) // '';
}
# Rows of workers whose session lock is held: those that may act.
sub leaders
{
	return $ops->sql(q{SELECT count(*) FROM ops.workers w JOIN pg_locks l ON l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
		AND (l.classid::bigint << 32) + l.objid::bigint = w.lock_key});
}
my $one_each = "ops_runner launcher 1\nops_runner worker 1";

subtest 'F19 the library is listed twice' => sub {
	$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{'ops_runner, ops_runner'});
	$node->restart;
	$ops->worker;
	is(processes(), $one_each, 'one launcher and one worker');
	$ops->succeeds($ops->queue($ops->environment('twice')));
};

subtest 'F19 a second worker and a second launcher are started by mistake' => sub {
	$ops->sql(q{CREATE FUNCTION start_again(what text) RETURNS void LANGUAGE c STRICT AS '$libdir/ops_runner', 'ops_fault_start'});
	my $worker = $ops->worker;
	$ops->sql(q{SELECT start_again('worker'), start_again('launcher')});
	OpsRunner::until('both have ended', sub { $ops->log_count("process $worker works in database") == 1
			&& $ops->log_count('is the launcher already, this one ends') == 1 && processes() eq $one_each });
	is($ops->worker, $worker, 'the first worker goes on');
	is(leaders(), 1, 'and is the only one that may act');
	$ops->succeeds($ops->queue($ops->environment('again')));
};

subtest 'F19 several workers start at the same time' => sub {
	my $before = $ops->worker;
	my $ended = $ops->log_count('works in database');
	# The worker's end and the starts are one statement: the launcher's own new worker races with them.
	$ops->sql("SELECT pg_terminate_backend($before), count(start_again('worker')) FROM generate_series(1, 5) GROUP BY 1");
	my $worker = $ops->worker($before);
	OpsRunner::until('all others have ended', sub { processes() eq $one_each });
	is(leaders(), 1, 'one of them may act');
	cmp_ok($ops->log_count('works in database') - $ended, '>=', 4, 'the others said why they ended');
	my $run = $ops->queue($ops->environment('raced'));
	$ops->succeeds($run);
};

subtest 'all in all' => sub { $ops->sound };

done_testing();
